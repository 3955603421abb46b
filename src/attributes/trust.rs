//! Where a volume's trust bundle comes from: `ca-source`.

use super::fields::Fields;
use super::rows::Key;
use super::values::list;
use crate::model::TrustSource;

/// Maximum number of elements of the attribute.
pub(super) const MAX_SOURCES: usize = 8;

/// The trust sources of a volume, each once.
pub(super) fn sources(fields: &mut Fields<'_>) -> Vec<TrustSource> {
    let (defaults, pod) = (&fields.defaults.trust, fields.pod);
    if fields.given(Key::CaSource).is_none() || defaults.are_unknown {
        return defaults.sources.clone();
    }
    let named = |text: &str| {
        if let Some(source) = TrustSource::cluster_trust_bundle(text) {
            let source = source?;
            return Ok(vec![source]);
        }
        let Some(config_map) = TrustSource::own_config_map(text, &pod.namespace) else {
            let listed = defaults.named.get(text).cloned();
            let listed = listed
                .or_else(|| (text == TrustSource::Signer.to_string()).then(|| vec![TrustSource::Signer]));
            return listed.ok_or_else(|| {
                format!("is not a trust source of the operator's ({})", listing(defaults.named.keys()))
            });
        };
        match config_map? {
            TrustSource::ConfigMap { name, .. }
                if !defaults.are_all_config_maps_allowed && !defaults.config_map_names.contains(&name) =>
            {
                Err(format!(
                    "is not a ConfigMap that the operator allows ({})",
                    listing(&defaults.config_map_names)
                ))
            }
            config_map => Ok(vec![config_map]),
        }
    };
    // The pod is running: its last anchors stay.
    let not_listed = |text: &str| Ok(vec![TrustSource::NotListed(text.to_owned())]);
    let elements = fields.list_or(Key::CaSource, list::split_at_commas, named, not_listed);
    if elements.len() > MAX_SOURCES && !fields.is_stored {
        let problem = format!("has {} elements", elements.len());
        fields.invalid(Key::CaSource, fields.given(Key::CaSource).unwrap_or_default(), &problem);
    }
    let mut sources = Vec::new();
    for source in elements.into_iter().flatten() {
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

/// What there is to choose from, for people.
fn listing<'n>(names: impl IntoIterator<Item = &'n String>) -> String {
    let names: Vec<&str> = names.into_iter().map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
