//! The types of settings that the standard library does not have.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;
use url::Url;

use super::kinds::Expected;

/// A generation of WuKongIM; their APIs differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Generation {
    /// v2.x.
    V2,
    /// v3.x.
    V3,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "v2",
            Self::V3 => "v3",
        })
    }
}

/// What decides about permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Membership: a user's own conversations and groups.
    Members,
    /// Any valid token may do anything, though never as another user.
    Open,
    /// The application's backend decides.
    Callback,
}

/// Who may choose a new group's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupIds {
    /// The creator.
    Any,
    /// Admins; for other users the gateway generates it.
    Admins,
}

/// Who sees the subscribers of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MembersVisible {
    /// Its subscribers.
    Members,
    /// Its owner, admins, and those of its managers who are subscribers.
    Managers,
}

/// When a send is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirm {
    /// When the message is confirmed as stored, with its seq.
    Stored,
    /// When WuKongIM has accepted it.
    Accepted,
}

/// Where a repeated clientMsgNo is searched for on v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DuplicateCheck {
    /// In this replica's memory.
    Memory,
    /// Also in the channel's newest messages.
    Upstream,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Always text.
    Text,
    /// Always JSON.
    Json,
}

/// What a new connection of a device does to an earlier one of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceLevel {
    /// Both stay connected (WuKongIM's 0).
    Slave,
    /// Ends the earlier one (WuKongIM's 1).
    Master,
}

/// The level of each kind of device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLevels {
    /// Device flag 0.
    pub app: DeviceLevel,
    /// Device flag 1.
    pub web: DeviceLevel,
    /// Device flag 2.
    pub pc: DeviceLevel,
}

impl FromStr for DeviceLevels {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        let level = |name: &str| match name.trim() {
            "slave" => Some(DeviceLevel::Slave),
            "master" => Some(DeviceLevel::Master),
            _ => None,
        };
        let parsed = || {
            if !text.contains('=') {
                return Some([Some(level(text)?); 3]);
            }
            let mut levels = [None; 3];
            for part in text.split(',') {
                let (device, name) = part.split_once('=')?;
                let devices = ["app", "web", "pc"];
                let index = devices.iter().position(|known| *known == device.trim())?;
                if levels[index].replace(level(name)?).is_some() {
                    return None;
                }
            }
            Some(levels)
        };
        let what = "must be \"slave\", \"master\", or levels by device (app, web, pc), such as \"app=master,web=slave\"";
        let levels = parsed().ok_or_else(|| Expected(what.to_owned()))?;
        let [app, web, pc] = levels.map(|level| level.unwrap_or(DeviceLevel::Slave));
        Ok(Self { app, web, pc })
    }
}

/// An http(s) address. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpUrl(Url);

impl HttpUrl {
    /// The address, with user and password if it has any: not for logs.
    pub fn as_url(&self) -> &Url {
        &self.0
    }

    /// Whether it has neither path nor query.
    pub(super) fn is_bare(&self) -> bool {
        self.0.path() == "/" && self.0.query().is_none()
    }
}

impl FromStr for HttpUrl {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        // `Url` also accepts and corrects "http:/host", "http:host" and backslashes, which are mistakes.
        let (_, rest) = text.split_once("://").unwrap_or(("", "/"));
        let is_well_formed = !rest.starts_with('/') && !text.contains('\\');
        let url = Url::parse(text).ok().filter(|url| {
            let is_http = matches!(url.scheme(), "http" | "https");
            is_well_formed && is_http && url.has_host() && url.fragment().is_none()
        });
        let what =
            "must be an http or https address, such as \"https://app.example.com/im/callback\"";
        url.map(Self).ok_or_else(|| Expected(what.to_owned()))
    }
}

impl fmt::Debug for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[address]")
    }
}

/// An address as it may be shown: without user, password and query, which may hold a key. Works on anything that looks like an address.
pub(super) fn redacted_url(url: &str) -> String {
    let (url, query) = match url.split_once('?') {
        Some((url, _)) => (url, "?[redacted]"),
        None => (url, ""),
    };
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '#']);
    let end = end.map_or(url.len(), |at| start + at);
    match url[start..end].rfind('@') {
        Some(at) => format!("{}[redacted]{}{query}", &url[..start], &url[start + at..]),
        None => format!("{url}{query}"),
    }
}

/// A public address for clients, kept exactly as written (`Url` would add a slash).
pub(super) fn is_public_url(text: &str, schemes: &[&str]) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    let url = Url::parse(text).ok().filter(|url| {
        // It is public, so it must not contain a password.
        url.has_host() && url.username().is_empty() && url.password().is_none()
    });
    let printable = !text.contains(|c: char| c.is_whitespace() || c.is_control());
    url.is_some() && printable && scheme.is_some_and(|scheme| schemes.contains(&scheme))
}

/// `host:port` with a port from 1 to 65535.
pub(super) fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    // The URL parser validates the host, including IPv6 in brackets.
    let host = !host.is_empty()
        && !host.contains(['/', '@', '?', '#', '\\'])
        && Url::parse(&format!("tcp://{host}"))
            .is_ok_and(|url| url.has_host() && url.port().is_none())
        && !host.contains(char::is_whitespace);
    host && port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// The address of the gateway's own database. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `sqlite::memory:`: gone with the process.
    SqliteMemory,
    /// `sqlite://path`: a file, relative to the working directory unless it starts with `/`.
    Sqlite(PathBuf),
    /// `postgres://user:password@host/database`, exactly as written. Supports any number of replicas.
    Postgres(String),
}

impl FromStr for StoreUrl {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        if text == "sqlite::memory:" {
            return Ok(Self::SqliteMemory);
        }
        if text.starts_with("postgres:") || text.starts_with("postgresql:") {
            if !is_postgres_url(text) {
                let parameters = POSTGRES_PARAMETERS.join(", ");
                return Err(Expected(format!(
                    "must be postgres://user:password@host:port/database, without parameters other than {parameters}"
                )));
            }
            // What the driver says of it may quote the value.
            let what = "must be postgres://… with parameters that the driver understands: sslmode is one of disable, allow, prefer, require, verify-ca, verify-full; statement-cache-capacity a whole number";
            let parsed = PgConnectOptions::from_str(text);
            return match parsed {
                Ok(_) => Ok(Self::Postgres(text.to_owned())),
                Err(_) => Err(Expected(what.to_owned())),
            };
        }
        let path = text.strip_prefix("sqlite://").filter(|path| {
            let is_file = !path.is_empty() && !path.ends_with('/') && *path != ":memory:";
            is_file && !path.contains(['?', '#', '%', '\0'])
        });
        let what = "must be sqlite://path, without parameters, sqlite::memory:, or postgres://user:password@host/database";
        path.map(|path| Self::Sqlite(path.into()))
            .ok_or_else(|| Expected(what.to_owned()))
    }
}

/// The allowed query parameters. The driver would log any other one with its value.
const POSTGRES_PARAMETERS: [&str; 8] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "application_name",
    "statement-cache-capacity",
    "options",
    "host",
];

/// User, host and database are required: the driver would read missing ones from the environment.
fn is_postgres_url(text: &str) -> bool {
    // `Url` drops tabs and line ends.
    let has_control = text.contains(char::is_control);
    Url::parse(text).is_ok_and(|url| {
        let is_known = |key: &str| {
            POSTGRES_PARAMETERS.contains(&key) || key.starts_with("options[") && key.ends_with(']')
        };
        !has_control
            && url.has_host()
            && !url.username().is_empty()
            && url.path().len() > 1
            // It is of a password that is not percent-encoded, and would be shown.
            && !url.path().contains('@')
            && url.fragment().is_none()
            && url.query_pairs().all(|(key, _)| is_known(&key))
    })
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_for_all_or_by_device() {
        use DeviceLevel::{Master, Slave};
        let levels = |text: &str| {
            text.parse::<DeviceLevels>()
                .ok()
                .map(|l| (l.app, l.web, l.pc))
        };
        assert_eq!(levels("master"), Some((Master, Master, Master)));
        assert_eq!(
            levels("app=master, web=slave"),
            Some((Master, Slave, Slave))
        );
        for bad in [
            "",
            "boss",
            "app=boss",
            "tv=slave",
            "app=slave,app=master",
            "app=slave,",
        ] {
            assert_eq!(levels(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_address_has_no_surprises() {
        for good in [
            "http://127.0.0.1:5001",
            "https://im.internal/",
            "http://u:p@h:1",
            "http://[::1]:5001",
        ] {
            assert!(good.parse::<HttpUrl>().unwrap().is_bare(), "{good}");
        }
        for page in [
            "http://h/api",
            "http://h/?a=1",
            "https://u:p@h:8443/im/callback?tenant=1",
            "https://id.example.com/.well-known/jwks.json",
        ] {
            assert!(!page.parse::<HttpUrl>().unwrap().is_bare(), "{page}");
        }
        for bad in [
            "",
            "127.0.0.1:5001",
            "localhost:5001",
            "h/callback",
            "file:///c",
            "ftp://h",
            "ftp://h/c",
            "http://",
            "http:///h",
            "http:h",
            "http:/h/c",
            "http://h#x",
            "http://h/c#f",
            "http://h:99999",
            "ws://h",
            "http:\\\\h",
        ] {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad}");
        }
    }

    #[test]
    fn debug_hides_addresses() {
        let url: HttpUrl = "http://root:hunter2@h:1".parse().unwrap();
        assert_eq!(format!("{url:?}"), "[address]");
        assert_eq!(
            redacted_url("http://a@b:c@h/x@y"),
            "http://[redacted]@h/x@y"
        );
        assert_eq!(
            redacted_url("http://a:b@h/x?key=hunter2&b=?"),
            "http://[redacted]@h/x?[redacted]"
        );
        assert_eq!(redacted_url("http://h/x"), "http://h/x");
        let store: StoreUrl = "sqlite://data/hunter2.db".parse().unwrap();
        assert_eq!(format!("{store:?}"), "[redacted]");
    }

    #[test]
    fn a_store_is_sqlite_or_postgresql() {
        let store = |text: &str| text.parse::<StoreUrl>();
        assert_eq!(store("sqlite::memory:"), Ok(StoreUrl::SqliteMemory));
        assert_eq!(
            store("sqlite://data/g.db"),
            Ok(StoreUrl::Sqlite("data/g.db".into()))
        );
        assert_eq!(
            store("sqlite:///var/g.db"),
            Ok(StoreUrl::Sqlite("/var/g.db".into()))
        );
        for bad in [
            "",
            "data/g.db",
            "sqlite://",
            "sqlite://a/",
            "sqlite://:memory:",
            "sqlite://g.db?mode=ro",
        ] {
            assert!(store(bad).is_err(), "{bad}");
        }
        for good in [
            "postgres://u:hunter2@h/db",
            "postgresql://u@[::1]:5433/db?sslmode=verify-full&sslrootcert=/ca.pem",
            "postgres://u:p%40@localhost/db?host=/run/postgresql&options[search_path]=im",
        ] {
            assert_eq!(store(good), Ok(StoreUrl::Postgres(good.into())));
        }
        for bad in [
            "postgres:",
            "postgres://h/db",
            "postgres://u@h",
            "postgres://u@h/",
            "postgres:///db",
            "postgres://u:hunter2@h/db?pasword=hunter2",
            "postgres://u:hunter2@h:port/db",
            "postgres://u:p@h/hunter2@h/db",
            "postgres:\t//u:hunter2@h/db",
            "postgres://u:hunter2@h/db?sslmode=verify-ful",
            "postgres://u:hunter2@h/db?statement-cache-capacity=many",
        ] {
            let said = store(bad).unwrap_err().to_string();
            assert!(
                said.starts_with("must be postgres://") && !said.contains("hunter2"),
                "{said}"
            );
        }
    }

    #[test]
    fn public_addresses_are_checked_and_kept() {
        assert!(is_public_url("ws://h:5200", &["ws", "wss"]));
        assert!(is_public_url("wss://im.example.com/ws", &["ws", "wss"]));
        for bad in [
            "",
            "h:5200",
            "http://h",
            "wss://u:p@h",
            "wss://",
            "ws://h h",
        ] {
            assert!(!is_public_url(bad, &["ws", "wss"]), "{bad}");
        }
        for good in ["im.example.com:5100", "10.0.0.1:5100", "[::1]:5100"] {
            assert!(is_host_and_port(good), "{good}");
        }
        for bad in [
            "",
            "h",
            ":5100",
            "h:",
            "h:0",
            "h:65536",
            "tcp://h:5100",
            "h:+5",
            "a b:1",
            "::1:5100",
        ] {
            assert!(!is_host_and_port(bad), "{bad}");
        }
    }
}
