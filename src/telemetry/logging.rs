//! Logging.
//!
//! Field names are the same everywhere: `volume`, `namespace`, `pod`, `target`, `signer`, `method`, `code`, `error`,
//! `class`, `path`, `socket`, and numbers with their unit in the name (`elapsed_seconds`, `retry_in_seconds`).
//! Values that are secret have types whose `Debug` and `Display` say so; no request is ever logged whole.

use clap::ValueEnum;
use std::io::IsTerminal;
use thiserror::Error;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// The log level was not understood.
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

/// Spaces around a directive are dropped here: the filter would take them for a part of its name.
fn filter(level: &str) -> Result<EnvFilter, String> {
    let directives: Vec<&str> = level.split(',').map(str::trim).collect();
    if let Some(odd) = directives.iter().find(|directive| !is_directive(directive)) {
        return Err(format!("{odd:?} is neither a level nor TARGET=LEVEL"));
    }
    // What fails on the way to the API server is told with its reason where it is dealt with; the client's own lines would
    // only double it.
    let directives = match directives.as_slice() {
        [level @ ("error" | "warn" | "info")] => format!("{level},kube_client=off,kube_runtime=off"),
        several => several.join(","),
    };
    EnvFilter::builder().parse(directives).map_err(|error| error.to_string())
}

/// A word alone has to be a level: as a target, which is what the filter would take it for, a misspelt level would switch
/// everything else off.
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
