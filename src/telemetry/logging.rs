//! Logging.
//!
//! Field names are the same everywhere: `volume`, `namespace`, `pod`, `target`, `signer`, `method`, `code`, `error`,
//! `kind`, `path`, `socket`, and numbers with their unit in the name (`elapsed_seconds`, `retry_in_seconds`).
//! The types of secret values hide them in `Debug` and `Display`. No request is ever logged as a whole.

use clap::ValueEnum;
use std::io::IsTerminal;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

/// The log level is invalid.
#[derive(Debug, Error)]
#[error(
    "--log-level {level:?}: {reason}; accepted: error, warn, info, debug, trace, or a filter such as \"info,certlet=debug\""
)]
pub struct LoggingError {
    level: String,
    reason: String,
}

/// Starts logging to standard error.
pub fn init(format: LogFormat, level: &str) -> Result<(), LoggingError> {
    let refuse = |reason: String| LoggingError { level: level.to_owned(), reason };
    let filter = filter(level).map_err(refuse)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    done.map_err(|error| refuse(error.to_string()))
}

/// Trims spaces around a directive, which the filter would read as part of its name.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let directives: Vec<&str> = level.split(',').map(str::trim).collect();
    if let Some(odd) = directives.iter().find(|directive| !is_directive(directive)) {
        return Err(format!("{odd:?} is neither a level nor TARGET=LEVEL"));
    }
    // certlet logs failures of the API server itself, with their reason. The client's lines would repeat them.
    let directives = match directives.as_slice() {
        [level @ ("error" | "warn" | "info")] => format!("{level},kube_client=off,kube_runtime=off"),
        several => several.join(","),
    };
    EnvFilter::builder().parse(directives).map_err(|error| error.to_string())
}

/// Whether a directive is valid. Without `=` it must be a level: the filter would read a misspelt level as a target, and
/// switch off everything else.
fn is_directive(text: &str) -> bool {
    text.contains('=') || !text.is_empty() && text.parse::<LevelFilter>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_around_directives_change_nothing() {
        for (spaced, plain) in [(" info ", "info"), ("info, certlet=debug", "info,certlet=debug")] {
            assert_eq!(filter(spaced).unwrap().to_string(), filter(plain).unwrap().to_string());
        }
        assert!(filter("info, certlet=debug").unwrap().to_string().contains("certlet=debug"));
    }
}
