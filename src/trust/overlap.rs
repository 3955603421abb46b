//! The anchors of one volume: those that its sources and its signer name, and for a while those that they have just stopped naming.

use super::TrustBundle;
use crate::model::{hex, sha256};
use crate::store::{RetainedAnchor, TrustRecord};
use crate::x509::subject_of;
use jiff::Timestamp;

/// Maximum number of retained anchors. Those that end first make way.
const MAX_RETAINED: usize = 16;

/// What is named now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named<'a> {
    /// By the sources other than the signer; none: the volume has no such source.
    pub(crate) by_sources: Option<&'a TrustBundle>,
    /// By the signer, DER; none: the volume does not trust what its signer names.
    pub(crate) by_signer: Option<&'a [Vec<u8>]>,
    /// Whether what the volume trusted before came from such sources too, and not from its signer alone.
    pub(crate) had_sources: bool,
}

/// How long an anchor stays trusted that is no longer named.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overlap {
    /// One that the signer named. None: no longer.
    pub(crate) of_signer: Option<Timestamp>,
    /// One of another source. None: no longer, because an operator's source is obeyed.
    pub(crate) of_sources: Option<Timestamp>,
    /// The present time.
    pub(crate) now: Timestamp,
}

/// What a volume trusts, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Composed {
    /// All anchors.
    pub(crate) trust: TrustBundle,
    /// Those that the signer names, as in [`TrustRecord`].
    pub(crate) signer_anchors: Vec<String>,
    /// Those that nothing names any more.
    pub(crate) retained: Vec<RetainedAnchor>,
}

/// The identity of an anchor in records.
pub(crate) fn anchor_id(der: &[u8]) -> String {
    hex(&sha256(&[der]))
}

/// Whether the signer named an anchor of the trust bundle. A record of an earlier build does not say; without other sources it named
/// all that are not retained.
pub(crate) fn was_named_by_signer(record: &TrustRecord, sha256: &str, has_other_sources: bool) -> bool {
    if record.signer_anchors.is_empty() && !has_other_sources {
        return record.retained.iter().all(|retained| retained.sha256 != sha256);
    }
    record.signer_anchors.iter().any(|named| named == sha256)
}

/// Composes what a volume trusts, from what is named now and from what it trusted before.
pub(crate) fn compose(
    named: Named<'_>,
    before: &TrustBundle,
    record: &TrustRecord,
    overlap: Overlap,
) -> Composed {
    let by_signer = named.by_signer.unwrap_or_default();
    let mut trust = named.by_sources.cloned().unwrap_or_default();
    for anchor in by_signer {
        if !trust.anchors.contains(anchor) {
            trust.anchors.push(anchor.clone());
        }
    }
    let mut kept: Vec<(RetainedAnchor, &Vec<u8>)> = Vec::new();
    for anchor in before.anchors.iter().filter(|anchor| !trust.anchors.contains(anchor)) {
        let sha256 = anchor_id(anchor);
        let until = match record.retained.iter().find(|retained| retained.sha256 == sha256) {
            Some(retained) => Some(retained.until),
            None if was_named_by_signer(record, &sha256, named.had_sources) => {
                overlap.of_signer.filter(|_| named.by_signer.is_some())
            }
            None => overlap.of_sources,
        };
        if let Some(until) = until.filter(|until| *until > overlap.now) {
            kept.push((RetainedAnchor { sha256, subject: subject_of(anchor), until }, anchor));
        }
    }
    if kept.len() > MAX_RETAINED {
        kept.sort_by_key(|(retained, _)| std::cmp::Reverse(retained.until));
        kept.truncate(MAX_RETAINED);
    }
    trust.anchors.extend(kept.iter().map(|(_, anchor)| (*anchor).clone()));
    Composed {
        trust,
        signer_anchors: by_signer.iter().map(|anchor| anchor_id(anchor)).collect(),
        retained: kept.into_iter().map(|(retained, _)| retained).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn after(seconds: i64) -> Timestamp {
        NOW + SignedDuration::from_secs(seconds)
    }

    fn anchors(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    fn trusting(names: &[&str]) -> TrustBundle {
        TrustBundle { anchors: anchors(names), ..TrustBundle::default() }
    }

    fn record(signer: &[&str], retained: &[(&str, i64)]) -> TrustRecord {
        let retained = retained.iter().map(|(name, seconds)| RetainedAnchor {
            sha256: anchor_id(name.as_bytes()),
            subject: String::new(),
            until: after(*seconds),
        });
        TrustRecord {
            signer_anchors: signer.iter().map(|name| anchor_id(name.as_bytes())).collect(),
            retained: retained.collect(),
            ..TrustRecord::default()
        }
    }

    /// The anchors and how many seconds the retained ones have left.
    fn composed(
        sources: Option<&[&str]>,
        signer: Option<&[&str]>,
        before: &[&str],
        record: &TrustRecord,
        overlap: (Option<i64>, Option<i64>),
    ) -> (Vec<String>, Vec<i64>) {
        let sources = sources.map(trusting);
        let signer = signer.map(anchors);
        let had_sources = sources.is_some();
        let named = Named { by_sources: sources.as_ref(), by_signer: signer.as_deref(), had_sources };
        let overlap = Overlap { of_signer: overlap.0.map(after), of_sources: overlap.1.map(after), now: NOW };
        let composed = compose(named, &trusting(before), record, overlap);
        let text = |der: Vec<u8>| String::from_utf8(der).unwrap();
        let left = composed.retained.iter().map(|retained| retained.until.duration_since(NOW).as_secs());
        (composed.trust.anchors.into_iter().map(text).collect(), left.collect())
    }

    #[test]
    fn the_signers_old_anchor_stays_until_its_end_and_not_longer() {
        let signer = (Some(100), None);
        let both = (vec!["b".to_owned(), "a".to_owned()], vec![100]);
        assert_eq!(composed(None, Some(&["b"]), &["a"], &record(&["a"], &[]), signer), both);
        // A record of an earlier build.
        assert_eq!(composed(None, Some(&["b"]), &["a"], &record(&[], &[]), signer), both);
        // Later: the end is that of before, and then it is gone.
        let later = |left| composed(None, Some(&["b"]), &["b", "a"], &record(&["b"], &[("a", left)]), signer);
        assert_eq!(later(50), (vec!["b".to_owned(), "a".to_owned()], vec![50]));
        assert_eq!(later(0), (vec!["b".to_owned()], vec![]));
        // The old one is named again.
        let back = composed(None, Some(&["a"]), &["b", "a"], &record(&["b"], &[("a", 50)]), signer);
        assert_eq!(back, (vec!["a".to_owned(), "b".to_owned()], vec![100]));
    }

    #[test]
    fn an_operators_source_is_obeyed_at_once_unless_an_overlap_is_asked_for() {
        let record = record(&[], &[]);
        let at_once = composed(Some(&["b"]), None, &["a", "b"], &record, (Some(100), None));
        assert_eq!(at_once, (vec!["b".to_owned()], vec![]));
        let overlapping = composed(Some(&["b"]), None, &["a", "b"], &record, (Some(100), Some(60)));
        assert_eq!(overlapping, (vec!["b".to_owned(), "a".to_owned()], vec![60]));
    }

    #[test]
    fn an_anchor_of_a_source_that_the_volume_no_longer_has_is_not_taken_for_the_signers() {
        let (signer, before) = (anchors(&["b"]), trusting(&["a"]));
        let named = Named { by_sources: None, by_signer: Some(&signer), had_sources: true };
        let overlap = Overlap { of_signer: Some(after(100)), of_sources: None, now: NOW };
        assert_eq!(compose(named, &before, &record(&[], &[]), overlap).trust, trusting(&["b"]));
        let overlap = Overlap { of_sources: Some(after(60)), ..overlap };
        assert_eq!(compose(named, &before, &record(&[], &[]), overlap).trust, trusting(&["b", "a"]));
    }

    #[test]
    fn with_both_each_anchor_follows_the_rule_of_where_it_came_from() {
        let record = record(&["s"], &[]);
        let both = composed(Some(&["o2"]), Some(&["t"]), &["o", "s"], &record, (Some(100), None));
        assert_eq!(both, (vec!["o2".to_owned(), "t".to_owned(), "s".to_owned()], vec![100]));
        // The operator now names other sources in place of the signer.
        let replaced = composed(Some(&["o"]), None, &["s"], &record, (Some(100), None));
        assert_eq!(replaced, (vec!["o".to_owned()], vec![]));
    }

    #[test]
    fn an_anchor_that_is_named_twice_is_there_once() {
        let joined = composed(Some(&["a", "b"]), Some(&["b", "c"]), &[], &record(&[], &[]), (None, None));
        assert_eq!(joined, (["a", "b", "c"].map(str::to_owned).to_vec(), vec![]));
    }

    #[test]
    fn at_most_a_few_are_retained_and_those_that_end_first_make_way() {
        let names: Vec<String> = (10..40).map(|name| name.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let retained: Vec<(&str, i64)> = names.iter().zip(1..).map(|(name, left)| (*name, left)).collect();
        let (_, left) = composed(None, Some(&["b"]), &names, &record(&["b"], &retained), (Some(1), None));
        assert_eq!(left, (15..=30).rev().collect::<Vec<i64>>());
    }
}
