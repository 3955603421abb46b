//! The operator's file of classes, which is followed while the driver runs.

use super::notices::Notices;
use super::watched_file;
use crate::attributes::{ClassFile, OperatorClasses, OperatorDefaults};
use crate::model::sha256;
use crate::platform::DirectoryWatch;
use crate::telemetry::Metrics;
use crate::volume::VolumeService;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio_util::sync::CancellationToken;

/// The file of classes, and whether every volume needs one.
#[derive(Clone, Debug)]
pub struct ClassConfig {
    /// `--classes`
    pub file: PathBuf,
    /// `--require-class`
    pub is_required: bool,
}

impl ClassConfig {
    /// Reads the file, which must be valid, and puts it in force in `defaults`.
    pub fn load(&self, defaults: &mut OperatorDefaults) -> Result<(), ClassesError> {
        let Self { file: path, is_required } = self;
        let (file, warnings) = read(path)
            .and_then(|text| ClassFile::parse(&text, defaults))
            .map_err(|problem| ClassesError::File { path: path.clone(), problem })?;
        warn(path, &warnings);
        defaults.classes = OperatorClasses::new(file, *is_required);
        Ok(())
    }
}

/// Why the classes cannot be used.
#[derive(Debug, Error)]
pub enum ClassesError {
    /// The file.
    #[error("--classes {}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file's directory.
    #[error("--classes {}: the directory cannot be watched for changes: {source}", .path.display())]
    Watch {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// The file that is in force, and what is known of its later versions.
pub(super) struct LiveClasses {
    path: PathBuf,
    watch: DirectoryWatch,
    defaults: OperatorDefaults,
    /// The digest of the last refused version of the file, or of the error if the file was not readable.
    refused: Option<[u8; 32]>,
    counts: Counts,
}

/// What operators see of the versions of the file.
#[derive(Default)]
struct Counts {
    loads: Counter,
    refusals: Counter,
    is_invalid: Gauge,
}

impl Counts {
    fn register(&self, registry: &mut Registry) {
        let help = "Versions of the file of classes that came into force";
        registry.register("classes_loads", help, self.loads.clone());
        let help = "Versions of the file of classes that were refused: the older classes stay in force";
        registry.register("classes_refusals", help, self.refusals.clone());
        let help = "Whether the newest version of the file of classes is refused: 1 or 0";
        registry.register("classes_invalid", help, self.is_invalid.clone());
    }
}

impl LiveClasses {
    /// Reads the file, which must be valid, and puts it in force in `defaults`.
    pub(super) fn open(
        config: &ClassConfig,
        defaults: &mut OperatorDefaults,
        metrics: &Metrics,
    ) -> Result<Self, ClassesError> {
        let path = &config.file;
        let watch =
            watched_file::watch(path).map_err(|source| ClassesError::Watch { path: path.clone(), source })?;
        config.load(defaults)?;
        let counts = Counts::default();
        counts.loads.inc();
        metrics.extend(|registry| counts.register(registry));
        Ok(Self { path: path.clone(), watch, defaults: defaults.clone(), refused: None, counts })
    }

    /// Follows the file until `end`.
    pub(super) async fn follow(self, volumes: VolumeService, notices: Arc<Notices>, end: CancellationToken) {
        let Self { path, watch, defaults, mut refused, counts } = self;
        watched_file::follow(watch, end, || {
            let text = read(&path);
            match text.as_deref().map_err(Clone::clone).and_then(|text| ClassFile::parse(text, &defaults)) {
                Ok((file, warnings)) => {
                    refused = None;
                    counts.is_invalid.set(0);
                    notices.class_fault(None);
                    let classes = file.len();
                    if defaults.classes.set(file) {
                        tracing::info!(path = %path.display(), classes, "the classes have changed");
                        warn(&path, &warnings);
                        counts.loads.inc();
                        volumes.retry_failed_classes();
                    }
                }
                Err(error) => {
                    let digest = sha256(&[text.as_deref().unwrap_or(&error).as_bytes()]);
                    if refused.replace(digest) != Some(digest) {
                        let path = path.display();
                        tracing::error!(%path, error, "the new file of classes is not valid; THE OLD CLASSES STAY IN FORCE");
                        counts.refusals.inc();
                        counts.is_invalid.set(1);
                        notices.class_fault(Some(format!(
                            "the file of classes {path} is not valid, and the old classes stay in force: {error}"
                        )));
                    }
                }
            }
        })
        .await;
    }
}

/// The text of the file. One that is too long is not read to its end.
fn read(path: &Path) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(ClassFile::MAX_BYTES + 1).read_to_string(&mut text)?;
        Ok::<_, io::Error>(text)
    };
    read().map_err(|error| error.to_string())
}

/// Logs what is most likely a mistake.
fn warn(path: &Path, warnings: &[String]) {
    for warning in warnings {
        tracing::warn!(path = %path.display(), "a class may not be as it is meant: {warning}");
    }
}
