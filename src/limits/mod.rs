//! Rate limits: per user after authentication, and per address for failures. Does not know routes or answers.
//!
//! A token is always checked, even if its address is out of tokens; only failures are then refused. So a flood of invalid tokens from an
//! address does not affect valid users behind it.

mod address;
mod buckets;
pub mod channel_limiter;
mod connections;
pub mod keyed_locks;
mod sharded_map;
mod time;
mod usage;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

use crate::config::{self, Cidr};
use crate::context::Reservation;
use crate::domain::Uid;
use crate::telemetry::Metrics;

use self::buckets::Buckets;
use self::usage::UserUsage;

pub use address::Peer;
pub use buckets::{Allowance, Refused};
pub use connections::{AddressConnections, ConnectionShare};
pub use sharded_map::Permit;
pub use time::Time;
pub use usage::{UserFull, UserPermit};

/// Asymmetric signature checks per second that are not charged to an address, over all addresses.
const UNBILLED_CHECKS_PER_SECOND: u32 = 500;

/// One user may have at most 1/4 of `max_in_flight` and of `max_buffered`.
const USER_SHARE_DIVISOR: usize = 4;

/// Size of the allocation that makes mimalloc return freed memory to the system; it is never touched. 64 KiB are too few, as measured.
const PURGE_BYTES: usize = 1024 * 1024;

const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The cost of a call to its user: one token is taken before its body is read, the rest after the body is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// That many tokens.
    Fixed(u32),
    /// Depends on the request's content; its type computes it.
    ByContent,
}

/// All rate limits.
pub struct Limits {
    users: Buckets,
    usage: UserUsage,
    addresses: Buckets,
    signatures: Buckets,
    trusted_proxies: Vec<Cidr>,
    proxy_warned: AtomicBool,
}

impl Limits {
    /// The limits of these settings, using this clock.
    pub fn new(settings: &config::Settings, time: &Time, metrics: &Metrics) -> Self {
        let limits = &settings.limits;
        let buckets = |limit, per_second, burst| {
            Buckets::new(per_second, burst, time.clone(), metrics.refusals(limit))
        };
        let anonymous = limits.anonymous_per_second;
        let unbilled = UNBILLED_CHECKS_PER_SECOND;
        Self {
            users: buckets("user", limits.requests_per_second, limits.burst),
            usage: UserUsage::new(
                settings.server.max_in_flight / USER_SHARE_DIVISOR,
                settings.server.max_buffered / USER_SHARE_DIVISOR,
                metrics,
            ),
            addresses: buckets("address", anonymous, anonymous),
            signatures: buckets("signature", unbilled, unbilled),
            trusted_proxies: settings.server.trusted_proxies.clone(),
            proxy_warned: AtomicBool::new(false),
        }
    }

    /// Takes the first token of a user's call.
    pub fn charge_user(&self, uid: &Uid) -> Result<Allowance, Refused> {
        self.users.take(uid.as_str())
    }

    /// Takes a call's cost beyond its first token. A user with fewer tokens goes into debt; a user in debt is refused.
    pub fn charge_user_remainder(&self, uid: &Uid, cost: u32) -> Result<Allowance, Refused> {
        self.users.take_remainder(uid.as_str(), cost)
    }

    /// Counts a request for its user, unless the user has a quarter of `server.max_in_flight` or of `server.max_buffered` already. The
    /// bytes of `held` count for the user from now on.
    pub fn admit_user(&self, uid: &Uid, held: &Reservation) -> Result<UserPermit, UserFull> {
        self.usage.admit(uid, held)
    }

    /// Charges an address for a failed authentication or an unknown path.
    pub fn charge_address(&self, address: IpAddr) -> Result<Allowance, Refused> {
        self.addresses.take(address::rate_limit_key(address))
    }

    /// Whether an asymmetric signature that is not cached may be checked for this address: always while the address has tokens left and a
    /// failure is charged to it (`is_billed`, asked only then), else within a shared limit of 500 a second. Call it before each check.
    pub fn may_check_signature(
        &self,
        address: IpAddr,
        is_billed: impl FnOnce() -> bool,
    ) -> Result<(), Refused> {
        if self.addresses.has_token(address::rate_limit_key(address)) && is_billed() {
            return Ok(());
        }
        self.signatures.take(()).map(|_| ())
    }

    /// The address that a request is charged to; unspecified for a request without a connection.
    pub fn address(&self, peer: Option<Peer>, headers: &HeaderMap) -> IpAddr {
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(address)| address);
        address::client(peer, headers, &self.trusted_proxies)
    }

    /// Whether the connection's remote address is a trusted proxy.
    pub fn is_trusted_proxy(&self, peer: Option<Peer>) -> bool {
        peer.is_some_and(|Peer(peer)| address::is_one_of(peer, &self.trusted_proxies))
    }

    /// Warns once when an unconfigured proxy seems to forward requests, since all clients behind it share one address.
    pub fn warn_unknown_proxy(&self, peer: Option<Peer>, headers: &HeaderMap) {
        if !self.trusted_proxies.is_empty() || self.proxy_warned.load(Ordering::Relaxed) {
            return;
        }
        let Some(Peer(peer)) = peer else { return };
        let forwarded =
            headers.contains_key(address::X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        if forwarded
            && address::is_private(peer)
            && !self.proxy_warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                proxy.address = %peer,
                "a private address forwards requests while server.trusted_proxies is empty: all clients behind it share one limit"
            );
        }
    }

    /// Writes the `RateLimit-*` headers for a user with this balance.
    pub fn write_headers(&self, balance: i64, headers: &mut HeaderMap) {
        headers.insert(RATELIMIT_LIMIT, HeaderValue::from(self.users.burst()));
        headers.insert(RATELIMIT_REMAINING, HeaderValue::from(balance.max(0)));
        let reset = self.users.full_in_s(balance);
        headers.insert(RATELIMIT_RESET, HeaderValue::from(reset));
    }

    /// Removes idle users and addresses. Call it every few seconds.
    pub fn sweep(&self) {
        self.users.sweep();
        self.usage.sweep();
        self.addresses.sweep();
        // mimalloc returns freed memory to the system only on a later large allocation, which may never come after a burst of users.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(PURGE_BYTES)));
    }

    /// The number of tracked users and addresses.
    pub fn tracked(&self) -> usize {
        self.entries().iter().map(|(_, count)| count).sum()
    }

    /// The same by kind.
    pub fn entries(&self) -> [(&'static str, usize); 2] {
        [
            ("user", self.users.len()),
            ("address", self.addresses.len()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(time: &Time) -> Limits {
        Limits::new(&config::Settings::for_tests(), time, &Metrics::default())
    }

    #[test]
    fn signatures_are_unlimited_until_the_address_has_no_tokens_and_then_500_a_second_for_all() {
        let time = Time::standing();
        let limits = limits(&time);
        let addresses: Vec<IpAddr> = (0..=255).map(|last| [192, 0, 2, last].into()).collect();
        for _ in 0..10 {
            for address in &addresses {
                assert_eq!(limits.may_check_signature(*address, || true), Ok(()));
            }
        }
        for address in &addresses {
            while limits.charge_address(*address).is_ok() {}
        }
        let checked = |limits: &Limits| {
            let all = addresses.iter().cycle().take(2000);
            all.filter(|address| limits.may_check_signature(**address, || true).is_ok())
                .count()
        };
        assert_eq!(checked(&limits), 500);
        assert_eq!(checked(&limits), 0);
        let refused = limits
            .may_check_signature(addresses[0], || true)
            .unwrap_err();
        assert_eq!(refused.retry_after_s, 1);
        assert_eq!(
            limits.may_check_signature([198, 51, 100, 1].into(), || true),
            Ok(()),
            "another address does not notice"
        );
        let unpaid = limits.may_check_signature([198, 51, 100, 1].into(), || false);
        assert_eq!(unpaid, Err(refused), "but where it would not pay");
        time.pass(Duration::from_millis(20));
        // Each address has one token of its own again by 50 ms; here it is the shared ones that came back.
        assert_eq!(checked(&limits), 10);
    }

    #[test]
    fn idle_users_and_addresses_are_removed() {
        let time = Time::standing();
        let limits = limits(&time);
        for n in 0..1000_u32 {
            let uid = Uid::parse(&n.to_string(), 128).unwrap();
            limits.charge_user(&uid).unwrap();
            limits.charge_user_remainder(&uid, 99).unwrap();
            limits.charge_address(n.to_be_bytes().into()).unwrap();
        }
        assert_eq!(limits.tracked(), 2000);
        limits.sweep();
        assert_eq!(limits.tracked(), 2000);
        time.pass(Duration::from_secs(3));
        limits.sweep();
        assert_eq!(limits.tracked(), 0);
    }
}
