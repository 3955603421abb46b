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
    if let Some(odd) = level.split(',').map(str::trim).find(|directive| !is_directive(directive)) {
        return Err(refuse(format!("{odd:?} is neither a level nor TARGET=LEVEL")));
    }
    // What fails on the way to the API server is told with its reason where it is dealt with; the client's own lines would
    // only double it.
    let directives = match level.trim() {
        "error" | "warn" | "info" => format!("{level},kube_client=off,kube_runtime=off"),
        _ => level.to_owned(),
    };
    let filter = EnvFilter::builder().parse(directives).map_err(|error| refuse(error.to_string()))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    done.map_err(|error| refuse(error.to_string()))
}

/// A word alone has to be a level: as a target, which is what the filter would take it for, a misspelt level would switch
/// everything else off.
fn is_directive(text: &str) -> bool {
    text.contains('=') || !text.is_empty() && text.parse::<LevelFilter>().is_ok()
}
