//! Settings: types, sources, validation, and display without secrets.
//!
//! The only module that reads the environment. `config/default.toml` is the manual; the names, types and bounds of keys are in
//! `settings.rs`.

mod algorithm;
mod checks;
mod describe;
mod kinds;
mod layers;
mod network;
mod problems;
mod reader;
mod secrets;
mod settings;
#[cfg(test)]
mod tests;
mod types;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

pub use algorithm::{ALGORITHMS, Algorithm};
pub use describe::describe;
pub use kinds::Expected;
pub use network::{Cidr, WebOrigin};
pub use problems::{ConfigError, ConfigErrors, Origin};
pub use settings::{
    Auth, Authorization, Channels, Cors, Docs, ImToken, Limits, Log, Public, Server, Settings,
    Socket, Store, Telemetry, Wukongim,
};
pub use types::{
    Confirm, DeviceLevel, DeviceLevels, DuplicateCheck, Generation, GroupIds, HttpUrl, LogFormat,
    MembersVisible, Mode, StoreUrl,
};

use layers::Layer;
use reader::Reader;

/// The defaults and the manual: every key with its comment.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Names the configuration file where `--config` does not.
const FILE_VARIABLE: &str = "GATEWAY_CONFIG";
/// The default configuration file, read if it exists.
const FILE_DEFAULT: &str = "config/gateway.toml";

/// All sources of a configuration, as values, so that tests need no separate process.
#[derive(Clone, Default)]
pub struct Sources {
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// Variables with a value that is not UTF-8; an error if the gateway would read them.
    pub undecodable: Vec<String>,
    /// The base of relative paths.
    pub cwd: PathBuf,
    /// `--embedded`: loopback, a random JWT secret and a store in memory where nothing else is set.
    pub embedded_mode: bool,
}

impl Sources {
    /// The environment and the working directory of this process.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the environment"
    )]
    pub fn from_process(config_file: Option<PathBuf>, embedded_mode: bool) -> Self {
        let mut sources = Self {
            config_file,
            embedded_mode,
            ..Self::default()
        };
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => drop(sources.env.insert(name, value)),
                Err(_) => sources.undecodable.push(name),
            }
        }
        sources
    }

    /// The file to read, if any.
    fn file(&self) -> Option<PathBuf> {
        let by_variable = || {
            let path = self.env.get(FILE_VARIABLE);
            path.filter(|path| !path.is_empty()).map(PathBuf::from)
        };
        let by_default = || {
            use std::io::ErrorKind::{NotADirectory, NotFound};
            let path = PathBuf::from(FILE_DEFAULT);
            // An existing but unreadable file is an error and must not be skipped.
            let kind = std::fs::metadata(self.cwd.join(&path)).map_err(|error| error.kind());
            (!matches!(kind, Err(NotFound | NotADirectory))).then_some(path)
        };
        let by_argument = self.config_file.clone();
        by_argument.or_else(by_variable).or_else(by_default)
    }
}

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The effective settings.
    pub settings: Settings,
    /// Warnings about valid but dangerous settings, as `key: what`.
    pub warnings: Vec<String>,
    /// Each key in printable form, and where its value came from.
    shown: Vec<reader::Shown>,
}

/// Checks that a file has a public key that is usable with one of the algorithms (any, if there are none); the error continues a sentence
/// about the file.
pub type KeyCheck = fn(&Path, &[Algorithm]) -> Result<(), String>;

/// Reads and checks all sources; returns all errors at once.
pub fn load(sources: &Sources, check_key: KeyCheck) -> Result<Loaded, ConfigErrors> {
    let mut problems = Vec::new();
    let undecodable = sources.undecodable.iter();
    for name in undecodable.filter(|name| layers::is_read(name)) {
        problems.push(ConfigError::with(name, "must be UTF-8"));
    }
    let defaults = layers::from_toml(DEFAULTS, |_| Origin::Default, &mut problems);
    let embedded = if sources.embedded_mode {
        embedded(&mut problems)
    } else {
        Layer::new()
    };
    let before_file = problems.len();
    let file = sources
        .file()
        .map(|path| layers::from_file(&sources.cwd, &path, &mut problems));
    let is_file_complete = problems.len() == before_file;
    let layers = [
        defaults,
        embedded,
        file.unwrap_or_default(),
        layers::from_openchat(&sources.env),
        layers::from_environment(&sources.env),
    ];
    let mut reader = Reader::new(&layers, &sources.cwd, is_file_complete, problems);
    let settings = Settings::read(&mut reader);
    reader.reject_unknown();
    let Some(settings) = settings else {
        return Err(ConfigErrors(reader.problems));
    };
    let embedded_mode = sources.embedded_mode;
    checks::problems(&settings, embedded_mode, check_key, &mut reader);
    if !reader.problems.is_empty() {
        return Err(ConfigErrors(reader.problems));
    }
    let mut warnings = checks::warnings(&settings, embedded_mode);
    warnings.append(&mut reader.warnings);
    Ok(Loaded {
        settings,
        warnings,
        shown: reader.shown,
    })
}

/// The defaults of `--embedded`.
fn embedded(problems: &mut Vec<ConfigError>) -> Layer {
    let Some(secret) = secrets::random() else {
        let what = "the system gives no random bytes for one";
        problems.push(ConfigError::with("auth.jwt_secret", what));
        return Layer::new();
    };
    let text = format!(
        "server.listen = '127.0.0.1:8080'\nstore.url = 'sqlite::memory:'\ndocs.enabled = true\nauth.jwt_secret = '{secret}'"
    );
    layers::from_toml(&text, |_| Origin::Embedded, problems)
}

impl Settings {
    /// The defaults with this JWT secret, as a base for tests. Reads nothing outside the binary.
    pub fn builtin(jwt_secret: &SecretString) -> Result<Self, ConfigErrors> {
        use secrecy::ExposeSecret as _;
        let name = layers::variable_for("auth.jwt_secret");
        let env = BTreeMap::from([(name, jwt_secret.expose_secret().to_owned())]);
        // A directory that cannot exist, so that no `config/gateway.toml` of the developer's is found.
        let cwd = PathBuf::from("/dev/null");
        let sources = Sources {
            env,
            cwd,
            ..Sources::default()
        };
        // There are no key files to check.
        load(&sources, |_, _| Ok(())).map(|loaded| loaded.settings)
    }

    /// [`Settings::builtin`] with some secret, for tests.
    ///
    /// # Panics
    /// When the built-in defaults do not pass their own checks.
    #[cfg(test)]
    pub fn for_tests() -> Self {
        Self::builtin(&"an-unguessable-secret-for-unit-tests".to_owned().into())
            .expect("the defaults are good")
    }
}
