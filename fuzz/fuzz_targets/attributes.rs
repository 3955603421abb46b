//! Volume contexts of any shape are parsed or refused, never a panic; what is refused is told.
//! One attribute a line, `key=value`; a line without `=` goes on from the value before.
#![no_main]

use certlet::attributes::{self, OperatorDefaults, SpiffeIds, VolumeContext};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use std::sync::LazyLock;

/// With a trust domain, so that `spiffe` is parsed too.
static DEFAULTS: LazyLock<OperatorDefaults> = LazyLock::new(|| {
    let ids = SpiffeIds::new("example.org", "spiffe://{trustDomain}/ns/{namespace}/sa/{serviceAccount}");
    OperatorDefaults { spiffe_ids: Some(ids.expect("the flags are fixed")), ..OperatorDefaults::default() }
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
    let parsed = VolumeContext::parse(context, HashMap::new())
        .and_then(|context| attributes::parse(&context.raw, &context.pod, &DEFAULTS));
    if let Err(errors) = parsed {
        assert!(!errors.to_string().is_empty() && !errors.first().is_empty());
    }
});
