//! How much anybody may ask for: each user after authentication, and each address for what fails. Knows no route and no answer.
//!
//! A token is always checked, whatever its address did before; only what fails is then refused. So a flood of bad tokens from an
//! address takes nothing from the good users behind it.

mod address;
mod buckets;
mod connections;
mod time;
mod usage;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

use crate::config::{self, Cidr};
use crate::domain::Uid;
use crate::memory::Share;
use crate::telemetry::Metrics;

use self::buckets::Buckets;
use self::usage::UserUsage;

pub use address::Peer;
pub use buckets::{Allowance, Refused};
pub use connections::{AddressConnections, AddressPermit};
pub use time::Time;
pub use usage::{UserFull, UserPermit};

/// Asymmetric signatures checked in a second that no address pays for, all of them together.
const SIGNATURES_PER_SECOND: u32 = 500;

/// Of the requests and bytes that the gateway holds at once, one user may have the whole divided by this.
const USER_PART: usize = 4;

/// Bytes that a sweep asks for and never touches. 64 KiB are too few, as measured.
const ASKED: usize = 1024 * 1024;

const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// What a call costs its user: one token is taken before its body is read, the rest when what it asks for is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// That many tokens.
    Fixed(u32),
    /// What its content makes WuKongIM do; told by the type that reads it.
    ByContent,
}

/// Every limit on how much.
pub struct Limits {
    users: Buckets,
    usage: UserUsage,
    addresses: Buckets,
    signatures: Buckets,
    trusted_proxies: Vec<Cidr>,
    told_of_proxy: AtomicBool,
    metrics: Arc<Metrics>,
}

impl Limits {
    /// The limits of these settings, by this clock.
    pub fn new(settings: &config::Settings, time: &Time, metrics: Arc<Metrics>) -> Self {
        let limits = &settings.limits;
        let anonymous = limits.anonymous_per_second;
        Self {
            users: Buckets::new(limits.requests_per_second, limits.burst, time.clone()),
            usage: UserUsage::new(
                settings.server.max_in_flight / USER_PART,
                settings.server.max_buffered / USER_PART,
                &metrics,
            ),
            addresses: Buckets::new(anonymous, anonymous, time.clone()),
            signatures: Buckets::new(SIGNATURES_PER_SECOND, SIGNATURES_PER_SECOND, time.clone()),
            trusted_proxies: settings.server.trusted_proxies.clone(),
            told_of_proxy: AtomicBool::new(false),
            metrics,
        }
    }

    /// Takes the one token that every call of a user begins with.
    pub fn charge_user(&self, uid: &Uid) -> Result<Allowance, Refused> {
        self.counted("user", self.users.take(uid.as_str()))
    }

    /// Takes what a call costs beyond its first token. A user who has less owes the rest; one who owes already is refused.
    pub fn charge_user_rest(&self, uid: &Uid, cost: u32) -> Result<Allowance, Refused> {
        self.counted("user", self.users.take_rest(uid.as_str(), cost))
    }

    /// Counts a request as its user's, unless a quarter of `server.max_in_flight` or of `server.max_buffered` is his already. What
    /// `held` holds is his from here on.
    pub fn admit_user(&self, uid: &Uid, held: &Share) -> Result<UserPermit, UserFull> {
        self.usage.admit(uid, held)
    }

    /// Charges an address for a failed authentication or an unknown path.
    pub fn charge_address(&self, address: IpAddr) -> Result<Allowance, Refused> {
        let key = address::counted(address);
        self.counted("address", self.addresses.take(key))
    }

    /// Whether an asymmetric signature that was never verified before may be checked for this address now: always while the address
    /// has something left and pays where the check fails (`is_paid`), else 500 a second for all others. To be asked before each check.
    pub fn may_check_signature(&self, address: IpAddr, is_paid: bool) -> Result<(), Refused> {
        if is_paid && self.addresses.has_one(address::counted(address)) {
            return Ok(());
        }
        self.counted("signature", self.signatures.take(()))
            .map(|_| ())
    }

    /// The address a request counts for. A request that came over no listener has none of its own.
    pub fn address(&self, peer: Option<Peer>, headers: &HeaderMap) -> IpAddr {
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(address)| address);
        address::client(peer, headers, &self.trusted_proxies)
    }

    /// Whether the other end of the connection is a trusted proxy.
    pub fn is_trusted_proxy(&self, peer: Option<Peer>) -> bool {
        peer.is_some_and(|Peer(peer)| address::is_one_of(peer, &self.trusted_proxies))
    }

    /// Says once in the log that a proxy seems to stand in front without being configured: then all behind it count as one.
    pub fn notice_proxy(&self, peer: Option<Peer>, headers: &HeaderMap) {
        if !self.trusted_proxies.is_empty() || self.told_of_proxy.load(Ordering::Relaxed) {
            return;
        }
        let Some(Peer(peer)) = peer else { return };
        let forwarded =
            headers.contains_key(address::X_FORWARDED_FOR) || headers.contains_key(FORWARDED);
        if forwarded
            && address::is_private(peer)
            && !self.told_of_proxy.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                proxy.address = %peer,
                "a private address forwards for others while server.trusted_proxies is empty: all behind it count as one"
            );
        }
    }

    /// Puts `RateLimit-*` on an answer to a user who has this much left, or owes it.
    pub fn tell(&self, balance: i64, headers: &mut HeaderMap) {
        headers.insert(RATELIMIT_LIMIT, HeaderValue::from(self.users.burst()));
        headers.insert(RATELIMIT_REMAINING, HeaderValue::from(balance.max(0)));
        let reset = self.users.full_in_s(balance);
        headers.insert(RATELIMIT_RESET, HeaderValue::from(reset));
    }

    /// Forgets users and addresses that have been idle. To be called every few seconds.
    pub fn sweep(&self) {
        self.users.sweep();
        self.usage.sweep();
        self.addresses.sweep();
        // mimalloc gives what was freed back to the system only when a large piece is asked for later, and after a crowd nobody may ask.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(ASKED)));
    }

    /// How many users and addresses are remembered.
    pub fn remembered(&self) -> usize {
        self.entries().iter().map(|(_, count)| count).sum()
    }

    /// The same by what they are.
    pub fn entries(&self) -> [(&'static str, usize); 2] {
        [
            ("user", self.users.len()),
            ("address", self.addresses.len()),
        ]
    }

    fn counted(
        &self,
        limit: &'static str,
        result: Result<Allowance, Refused>,
    ) -> Result<Allowance, Refused> {
        result.inspect_err(|_| self.metrics.limited(limit))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limits(time: &Time) -> Limits {
        Limits::new(&config::Settings::for_tests(), time, Arc::default())
    }

    #[test]
    fn signatures_are_free_until_the_address_has_nothing_left_and_then_500_a_second_for_all() {
        let time = Time::standing();
        let limits = limits(&time);
        let addresses: Vec<IpAddr> = (0..=255).map(|last| [192, 0, 2, last].into()).collect();
        for _ in 0..10 {
            for address in &addresses {
                assert_eq!(limits.may_check_signature(*address, true), Ok(()));
            }
        }
        for address in &addresses {
            while limits.charge_address(*address).is_ok() {}
        }
        let checked = |limits: &Limits| {
            let all = addresses.iter().cycle().take(2000);
            all.filter(|address| limits.may_check_signature(**address, true).is_ok())
                .count()
        };
        assert_eq!(checked(&limits), 500);
        assert_eq!(checked(&limits), 0);
        let refused = limits.may_check_signature(addresses[0], true).unwrap_err();
        assert_eq!(refused.retry_after_s, 1);
        assert_eq!(
            limits.may_check_signature([198, 51, 100, 1].into(), true),
            Ok(()),
            "another address does not notice"
        );
        let unpaid = limits.may_check_signature([198, 51, 100, 1].into(), false);
        assert_eq!(unpaid, Err(refused), "but where it would not pay");
        time.pass(Duration::from_millis(20));
        // Each address has one token of its own again by 50 ms; here it is the shared ones that came back.
        assert_eq!(checked(&limits), 10);
    }

    #[test]
    fn users_and_addresses_are_forgotten_once_idle() {
        let time = Time::standing();
        let limits = limits(&time);
        for n in 0..1000_u32 {
            let uid = Uid::parse(&n.to_string(), 128).unwrap();
            limits.charge_user(&uid).unwrap();
            limits.charge_user_rest(&uid, 99).unwrap();
            limits.charge_address(n.to_be_bytes().into()).unwrap();
        }
        assert_eq!(limits.remembered(), 2000);
        limits.sweep();
        assert_eq!(limits.remembered(), 2000);
        time.pass(Duration::from_secs(3));
        limits.sweep();
        assert_eq!(limits.remembered(), 0);
    }
}
