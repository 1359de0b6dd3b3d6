//! JWTs of many users, for requests whose answers are shared for a while by those of one user.

use std::io::{self, BufWriter, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;

/// How long they are good.
const LIFE: Duration = Duration::from_hours(24);

/// Prints a token of HS256 on each line, for `m00000`, `m00001`, ….
pub fn run(secret: &str, count: usize) -> io::Result<()> {
    let (key, header) = (EncodingKey::from_secret(secret.as_bytes()), Header::default());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let expires = now.map_err(io::Error::other)? + LIFE;
    let mut out = BufWriter::new(io::stdout().lock());
    for user in 0..count {
        let claims = json!({ "sub": format!("m{user:05}"), "exp": expires.as_secs() });
        let token = encode(&header, &claims, &key).map_err(io::Error::other)?;
        writeln!(out, "{token}")?;
    }
    out.flush()
}
