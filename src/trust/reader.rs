//! What reads a file or a ConfigMap tells here what it has read.

/// Takes the text of a source.
#[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "only ConfigMaps need all of it"))]
pub(super) trait SourceReader: Send + Sync + 'static {
    /// The key of a ConfigMap when none is named.
    const DEFAULT_KEY: &'static str;

    /// Maximum size of the text, in bytes.
    fn max_bytes(&self) -> usize;

    /// The source's text as it is now, or why there is none.
    fn read(&self, text: Result<Vec<u8>, String>) -> impl Future<Output = ()> + Send;

    /// Whether the source could be used before.
    fn was_usable(&self) -> bool;
}
