//! The flags for classes of identity.

use crate::run::ClassConfig;
use clap::Args;
use std::path::PathBuf;

/// The operator's classes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Classes")]
pub struct ClassArgs {
    /// File with the classes that volumes may name in "class", as docs/classes.md describes it. The driver reads it again when it
    /// changes; a version that is not valid changes nothing. --class is the same.
    #[arg(long, alias = "class", env = "CERTLET_CLASSES", value_name = "FILE")]
    pub classes: Option<PathBuf>,

    /// Refuse volumes without a class, whatever prefix their attributes have. Volumes that are in use stay.
    #[arg(long, env = "CERTLET_REQUIRE_CLASS", requires = "classes")]
    pub require_class: bool,
}

impl ClassArgs {
    /// None without a file.
    pub(super) fn config(&self) -> Option<ClassConfig> {
        let file = self.classes.clone()?;
        Some(ClassConfig { file, is_required: self.require_class })
    }
}
