//! Volume contexts of any shape are parsed or refused, never a panic; what is refused is told.
//! One attribute a line, `key=value`; a line without `=` goes on from the value before.
#![no_main]

use certlet::attributes::{self, OperatorDefaults, OptionalAttribute, SpiffeIds, SvidDefaults, VolumeContext};
use certlet::model::Dialect;
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::sync::LazyLock;

/// With a trust domain, so that `spiffe` is parsed too, under certlet's own name and under that of csi-driver-spiffe.
static DEFAULTS: LazyLock<[OperatorDefaults; 2]> = LazyLock::new(|| {
    let ids = SpiffeIds::new("example.org", "spiffe://{trustDomain}/ns/{namespace}/sa/{serviceAccount}");
    let ids = ids.expect("the flags are fixed");
    [Dialect::Certlet, Dialect::CsiDriverSpiffe].map(|dialect| OperatorDefaults {
        dialect,
        spiffe_ids: Some(ids.clone()),
        svid: SvidDefaults {
            attributes: OptionalAttribute::ALL.iter().copied().collect(),
            ..SvidDefaults::default()
        },
        ..OperatorDefaults::default()
    })
});

fuzz_target!(|text: &str| {
    let mut context: HashMap<String, String> = [
        ("csi.storage.k8s.io/pod.name", "pod"),
        ("csi.storage.k8s.io/pod.namespace", "namespace"),
        ("csi.storage.k8s.io/pod.uid", "uid"),
        ("csi.storage.k8s.io/serviceAccount.name", "account"),
        ("csi.storage.k8s.io/ephemeral", "true"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let mut last = String::new();
    for line in text.lines() {
        if let Some((key, value)) = line.split_once('=') {
            last = key.to_owned();
            context.insert(last.clone(), value.to_owned());
        } else if let Some(value) = context.get_mut(&last) {
            value.push('\n');
            value.push_str(line);
        }
    }
    for defaults in &*DEFAULTS {
        let parsed = VolumeContext::parse(context.clone(), HashMap::new(), defaults.dialect)
            .and_then(|context| attributes::parse(&context.raw, &context.pod, defaults));
        if let Err(errors) = parsed {
            assert!(!errors.to_string().is_empty() && !errors.first().is_empty());
        }
    }
});
