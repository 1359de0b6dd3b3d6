//! Types of settings for networks and origins.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use url::Url;

use super::kinds::Expected;

/// A range of addresses, such as `10.0.0.0/8` or `::1`. An IPv4-mapped address (`::ffff:…`) is IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr(IpNet);

impl Cidr {
    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }

    /// Whether it contains all addresses of its family.
    pub fn is_everything(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl FromStr for Cidr {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let parsed = || {
            let Some((address, length)) = text.split_once('/') else {
                return Some(text.parse::<IpAddr>().ok()?.to_canonical().into());
            };
            // Not the library's parser: it takes 010.0.0.0, which some read as 8.0.0.0.
            let address: IpAddr = address.parse().ok()?;
            // `u8::from_str` would also take a sign.
            let length: u8 = length.parse().ok().filter(|_| !length.starts_with('+'))?;
            // A range inside ::ffff:0:0/96 is an IPv4 range.
            let canonical = address.to_canonical();
            let is_mapped = canonical.is_ipv4() && address.is_ipv6();
            let length = length.checked_sub(if is_mapped { 96 } else { 0 })?;
            Some(IpNet::new(canonical, length).ok()?.trunc())
        };
        let what = "must be an address or a range of them, such as \"10.0.0.0/8\" or \"fd00::/8\"";
        parsed().map(Self).ok_or_else(|| Expected(what.to_owned()))
    }
}

/// An origin whose pages may call the API from a browser.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebOrigin {
    /// `*`: any origin.
    Any,
    /// This origin, as browsers send it: `https://app.example.com`.
    Exact(String),
}

impl FromStr for WebOrigin {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let is_usual = || {
            let (scheme, rest) = text.split_once("://")?;
            let url = Url::parse(text).ok()?;
            let plain = |c: char| c.is_ascii_graphic() && !"/?#@*\\".contains(c);
            Some(
                rest.chars().all(plain)
                    && match scheme {
                        // Lower case, without the default port and without a path: anything else would never match.
                        "http" | "https" => url.origin().ascii_serialization() == text,
                        // Origins of apps with web views, such as capacitor://localhost.
                        _ => url.has_host(),
                    },
            )
        };
        if is_usual() == Some(true) {
            return Ok(Self::Exact(text.to_owned()));
        }
        let what = "must be \"*\" or an origin as browsers send it, without a path and without the usual port, such as \"https://app.example.com\"";
        Err(Expected(what.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        for (range, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.1.2.3/8", "10.0.0.0", "9.255.255.255"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.0/31", "::ffff:192.0.2.1", "192.0.2.2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.0.0.0"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::/0", "::1", "0.0.0.0"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
        ] {
            let cidr: Cidr = range.parse().unwrap();
            assert!(cidr.contains(inside.parse().unwrap()), "{range} {inside}");
            assert!(
                !cidr.contains(outside.parse().unwrap()),
                "{range} {outside}"
            );
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0",
            "proxy.internal",
            "10.0.0.1:80",
            "::ffff:10.0.0.0/8",
            "::ffff:10.0.0.0/129",
            "010.0.0.0/8",
            "10.0.0.0/-8",
        ] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_origin_is_what_a_browser_would_send() {
        for good in [
            "https://app.example.com",
            "http://localhost:5173",
            "https://xn--fiqs8s.cn",
            "http://[::1]:8080",
            "capacitor://localhost",
        ] {
            assert_eq!(good.parse(), Ok(WebOrigin::Exact(good.into())));
        }
        assert_eq!("*".parse(), Ok(WebOrigin::Any));
        for bad in [
            "",
            "null",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com:443",
            "https://App.example.com",
            "https://*.example.com",
            "https://u@app.example.com",
            "https://",
            "capacitor://",
            "capacitor://localhost/",
        ] {
            assert!(bad.parse::<WebOrigin>().is_err(), "{bad}");
        }
    }
}
