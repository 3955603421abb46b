//! Patterns for names, with `*`, `**` and variables.

use super::{WorkloadIdentity, encoded_separator};
use serde::Deserialize;
use std::fmt;

/// A valid pattern.
///
/// `*` matches any text within one part of a name, `**` matches any text. The separators of parts depend on the [`PatternKind`] of the
/// name. Neither matches an asterisk in the name: only `{wildcard}` does, so that nobody gets a wildcard certificate by
/// accident. `{namespace}`, `{serviceAccount}` and `{pod}` match exactly those of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pattern {
    /// The pattern as written.
    pub(crate) text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Literal(String),
    /// Any text within one part of a name.
    Part,
    /// Any text.
    Anything,
    Namespace,
    ServiceAccount,
    Pod,
}

/// The kind of a name. Its parts end at separators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatternKind {
    /// Separated by dots. Case is ignored (RFC 5280 section 7.2).
    Dns,
    /// An ARN, or the name of a template: separated by slashes.
    Path,
    /// Separated by slashes and by every character that can end a host (RFC 3986 section 3.2), so that
    /// `https://*.example.org/` does not match `https://evil.example#.example.org/`.
    Uri,
    /// Separated by commas.
    Text,
    /// Separated by commas, and by the plus signs within one RDN (RFC 4514 section 2.2). In values both are escaped as
    /// hexadecimal codes.
    DistinguishedName,
}

impl PatternKind {
    fn separators(self) -> &'static [char] {
        match self {
            Self::Dns => &['.'],
            Self::Path => &['/'],
            Self::Uri => &['/', '?', '#', '@', ':'],
            Self::Text => &[','],
            Self::DistinguishedName => &[',', '+'],
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(['*', '{', '}']) {
            let (literal, special) = rest.split_at(at);
            if !literal.is_empty() {
                pieces.push(Piece::Literal(literal.to_owned()));
            }
            let (piece, length) = special_piece(&text, special)?;
            pieces.push(piece);
            rest = special.get(length..).unwrap_or_default();
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        if pieces.is_empty() {
            return Err(
                "an empty pattern; accepted: a name, *, **, {namespace}, {serviceAccount}, {pod}, {wildcard}"
                    .into(),
            );
        }
        Ok(Self { text, pieces })
    }
}

impl Pattern {
    /// Whether a name fits. A URI with a percent-encoded separator fits no pattern, because servers differ in whether they
    /// decode it.
    pub(crate) fn fits(&self, name: &str, kind: PatternKind, pod: &WorkloadIdentity) -> bool {
        !(kind == PatternKind::Uri && encoded_separator(name).is_some())
            && fits(&self.pieces, name, kind, pod)
    }

    /// Whether an asterisk can stand for the Region in the ARN of a CA: `arn:PARTITION:acm-pca:REGION:ACCOUNT:RESOURCE`. In these
    /// ARNs only the five separators are colons.
    pub(crate) fn leaves_region_open(&self) -> bool {
        let parts: Vec<&str> = self.text.split(':').collect();
        let is_fixed = |part: &&str| !part.contains('*');
        // The Region is the fourth part from the left, and the third from the right, if no asterisk stands for several parts.
        let is_fixed = match parts.as_slice() {
            [_, _, _, region, _, _] => is_fixed(region),
            [first, second, third, region, ..]
                if [first, second, third, region].into_iter().all(is_fixed) =>
            {
                true
            }
            [.., region, account, resource] => {
                is_fixed(region) && is_fixed(account) && resource.starts_with("certificate-authority/")
            }
            _ => false,
        };
        !is_fixed
    }

    /// Whether a variable stands beside an asterisk, so that the name of one pod's namespace can begin or end another's:
    /// `{namespace}-*` for the namespace `shop` matches what `{namespace}` is for `shop-a`.
    pub(crate) fn is_ambiguous(&self) -> bool {
        let is_variable =
            |piece: &Piece| matches!(piece, Piece::Namespace | Piece::ServiceAccount | Piece::Pod);
        let is_any = |piece: &Piece| matches!(piece, Piece::Part | Piece::Anything);
        let is_clash = |a: &Piece, b: &Piece| is_variable(a) && is_any(b) || is_any(a) && is_variable(b);
        // Characters that a name in Kubernetes can go on with.
        let goes_on = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        self.pieces.windows(2).any(|two| is_clash(&two[0], &two[1]))
            || self.pieces.windows(3).any(|three| match &three[1] {
                Piece::Literal(text) => goes_on(text) && is_clash(&three[0], &three[2]),
                _ => false,
            })
    }
}

/// The piece that begins with an asterisk or a brace, and its length.
fn special_piece(whole: &str, special: &str) -> Result<(Piece, usize), String> {
    let known = [
        ("**", Piece::Anything),
        ("*", Piece::Part),
        ("{namespace}", Piece::Namespace),
        ("{serviceAccount}", Piece::ServiceAccount),
        ("{pod}", Piece::Pod),
        ("{wildcard}", Piece::Literal("*".to_owned())),
    ];
    let found = known.into_iter().find(|(text, _)| special.starts_with(text));
    found.map(|(text, piece)| (piece, text.len())).ok_or_else(|| {
        format!(
            "{whole:?}: a brace without a known variable; accepted: {{namespace}}, {{serviceAccount}}, {{pod}}, \
             {{wildcard}}"
        )
    })
}

/// Walks over the name once for each piece, so that the time grows with the product of their lengths and no faster:
/// backtracking would let a name of some kilobytes hold a thread for seconds.
fn fits(pieces: &[Piece], name: &str, kind: PatternKind, pod: &WorkloadIdentity) -> bool {
    // The positions in the name at which the pieces before can end.
    let mut ends = vec![false; name.len() + 1];
    ends[0] = true;
    for piece in pieces {
        ends = match piece {
            Piece::Literal(text) => after_literal(&ends, name, text, kind),
            Piece::Namespace => after_literal(&ends, name, &pod.namespace, kind),
            Piece::ServiceAccount => after_literal(&ends, name, &pod.service_account, kind),
            Piece::Pod => after_literal(&ends, name, &pod.name, kind),
            // A part is never empty: `*.example.org` does not match `.example.org`.
            Piece::Part => after_any(&ends, name, kind.separators(), false),
            Piece::Anything => after_any(&ends, name, &[], true),
        };
        if !ends.contains(&true) {
            return false;
        }
    }
    ends[name.len()]
}

fn after_literal(ends: &[bool], name: &str, text: &str, kind: PatternKind) -> Vec<bool> {
    let same = |part: &[u8]| match kind {
        PatternKind::Dns => part.eq_ignore_ascii_case(text.as_bytes()),
        PatternKind::Path | PatternKind::Uri | PatternKind::Text | PatternKind::DistinguishedName => {
            part == text.as_bytes()
        }
    };
    let mut after = vec![false; ends.len()];
    for (at, _) in ends.iter().enumerate().filter(|(_, ends_here)| **ends_here) {
        if name.as_bytes().get(at..at + text.len()).is_some_and(same) {
            after[at + text.len()] = true;
        }
    }
    after
}

/// After any text without an asterisk and without one of the separators.
fn after_any(ends: &[bool], name: &str, separators: &[char], may_be_empty: bool) -> Vec<bool> {
    let mut after = vec![false; ends.len()];
    let mut is_open = false;
    for (at, c) in name.char_indices() {
        after[at] = is_open || may_be_empty && ends[at];
        is_open = (is_open || ends[at]) && c != '*' && !separators.contains(&c);
    }
    after[name.len()] = is_open || may_be_empty && ends[name.len()];
    after
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> WorkloadIdentity {
        WorkloadIdentity {
            namespace: "shop".into(),
            name: "web-0".into(),
            uid: "u".into(),
            service_account: "web".into(),
        }
    }

    fn fit(pattern: &str, name: &str, kind: PatternKind) -> bool {
        Pattern::try_from(pattern.to_owned()).unwrap().fits(name, kind, &pod())
    }

    #[test]
    fn a_star_stays_within_one_label() {
        let pattern = "*.{namespace}.svc.cluster.local";
        assert!(fit(pattern, "web.shop.svc.cluster.local", PatternKind::Dns));
        assert!(fit(pattern, "WEB.Shop.svc.CLUSTER.local", PatternKind::Dns));
        for other in [
            "web.bank.svc.cluster.local",
            "a.web.shop.svc.cluster.local",
            ".shop.svc.cluster.local",
            "shop.svc.cluster.local",
            "web.shop.svc.cluster.local.evil.example",
        ] {
            assert!(!fit(pattern, other, PatternKind::Dns), "{other}");
        }
        assert!(fit("**.shop.svc", "a.b.shop.svc", PatternKind::Dns));
    }

    #[test]
    fn a_wildcard_certificate_needs_its_own_permission() {
        assert!(!fit("*.shop.svc", "*.shop.svc", PatternKind::Dns));
        assert!(!fit("**", "*.shop.svc", PatternKind::Dns));
        assert!(fit("{wildcard}.shop.svc", "*.shop.svc", PatternKind::Dns));
        assert!(!fit("{wildcard}.shop.svc", "a.shop.svc", PatternKind::Dns));
    }

    #[test]
    fn variables_match_exactly_those_of_the_pod() {
        let spiffe = "spiffe://example.org/ns/{namespace}/sa/{serviceAccount}";
        assert!(fit(spiffe, "spiffe://example.org/ns/shop/sa/web", PatternKind::Path));
        assert!(!fit(spiffe, "spiffe://example.org/ns/shop/sa/web/x", PatternKind::Path));
        assert!(!fit(spiffe, "spiffe://example.org/ns/shop/sa/Web", PatternKind::Path));
        let other = WorkloadIdentity { namespace: "*".into(), ..pod() };
        assert!(!Pattern::try_from("{namespace}.svc".to_owned()).unwrap().fits(
            "any.svc",
            PatternKind::Dns,
            &other
        ));
    }

    #[test]
    fn a_star_in_a_uri_stays_within_the_host() {
        let pattern = "https://*.example.org/**";
        assert!(fit(pattern, "https://web.example.org/a/b?c=d:e@f#g", PatternKind::Uri));
        for other in [
            "https://evil.com#.example.org/x",
            "https://evil.com?.example.org/x",
            "https://evil.com/.example.org/x",
            "https://evil.com:1@x.example.org/x",
            "https://evil@x.example.org/x",
            "https://evil.com:1.example.org/x",
        ] {
            assert!(!fit(pattern, other, PatternKind::Uri), "{other}");
            assert!(fit("https://**.example.org/x", other, PatternKind::Uri), "{other}");
        }
        assert!(!fit("spiffe://example.org/sa/*", "spiffe://example.org/sa/web?admin", PatternKind::Uri));
    }

    #[test]
    fn a_star_in_an_arn_stops_only_at_slashes() {
        let role = "arn:aws:iam::123456789012:role/shop-a@b";
        for pattern in ["arn:aws:iam::*:role/{namespace}-*", "*/shop-*", "arn:*:role/*"] {
            assert!(fit(pattern, role, PatternKind::Path), "{pattern}");
            assert!(!fit(pattern, &format!("{role}/c"), PatternKind::Path), "{pattern}");
        }
        assert!(
            fit("*/V1", "EndEntityCertificate/V1", PatternKind::Path),
            "a template is named without its ARN"
        );
    }

    /// The same by backtracking, as the definition reads.
    fn fits_by_definition(pieces: &[Piece], name: &str, kind: PatternKind, pod: &WorkloadIdentity) -> bool {
        let Some((piece, others)) = pieces.split_first() else { return name.is_empty() };
        let literal = |text: &str| {
            let same = name.get(..text.len()).is_some_and(|head| match kind {
                PatternKind::Dns => head.eq_ignore_ascii_case(text),
                _ => head == text,
            });
            same && fits_by_definition(others, &name[text.len()..], kind, pod)
        };
        match piece {
            Piece::Literal(text) => literal(text),
            Piece::Namespace => literal(&pod.namespace),
            Piece::ServiceAccount => literal(&pod.service_account),
            Piece::Pod => literal(&pod.name),
            Piece::Part | Piece::Anything => {
                let stops = |c: char| c == '*' || (*piece == Piece::Part && kind.separators().contains(&c));
                let reach = name.find(stops).unwrap_or(name.len());
                (usize::from(*piece == Piece::Part)..=reach)
                    .filter(|at| name.is_char_boundary(*at))
                    .any(|at| fits_by_definition(others, &name[at..], kind, pod))
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_match_is_what_the_definition_says(
            pattern in "[aA.*/é]{0,4}(\\{namespace\\}|\\{wildcard\\}|\\*\\*)?[a.*/é]{1,4}",
            name in "(shop|[aA.*/é])[aA.*/é]{0,5}",
        ) {
            let pattern = Pattern::try_from(pattern).unwrap();
            for kind in [PatternKind::Dns, PatternKind::Path, PatternKind::Uri, PatternKind::Text, PatternKind::DistinguishedName] {
                let expected = fits_by_definition(&pattern.pieces, &name, kind, &pod());
                proptest::prop_assert_eq!(pattern.fits(&name, kind, &pod()), expected, "{} {:?}", pattern, kind);
            }
        }
    }

    #[test]
    fn an_encoded_separator_fits_nothing() {
        for other in
            ["spiffe://example.org/a%2Fb", "spiffe://example.org/a%2fb", "spiffe://example.org/%252F"]
        {
            for pattern in ["spiffe://example.org/*", "**"] {
                assert!(!fit(pattern, other, PatternKind::Uri), "{pattern} {other}");
            }
        }
        assert!(fit("https://example.org/*", "https://example.org/a%20b", PatternKind::Uri));
    }

    #[test]
    fn a_variable_beside_an_asterisk_is_noticed() {
        for (pattern, is_ambiguous) in [
            ("arn:aws:iam::1:role/{namespace}-*", true),
            ("*{namespace}", true),
            ("**x{pod}", true),
            ("*.{namespace}.svc", false),
            ("role/{namespace}/*", false),
            ("{namespace}-{serviceAccount}", false),
        ] {
            assert_eq!(
                Pattern::try_from(pattern.to_owned()).unwrap().is_ambiguous(),
                is_ambiguous,
                "{pattern}"
            );
        }
    }

    #[test]
    fn a_mistyped_variable_is_refused() {
        for invalid in ["{serviceaccount}", "{", "a}", "{pod", ""] {
            assert!(Pattern::try_from(invalid.to_owned()).is_err(), "{invalid:?}");
        }
    }

    #[test]
    fn an_asterisk_for_the_region_of_a_ca_is_seen() {
        for (pattern, is_open) in [
            ("arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/*", false),
            ("arn:*:acm-pca:eu-central-1:*:certificate-authority/*", false),
            ("arn:aws:acm-pca:eu-central-1:**", false),
            ("**:eu-central-1:123456789012:certificate-authority/*", false),
            ("arn:aws:acm-pca:*:123456789012:certificate-authority/*", true),
            ("arn:aws:acm-pca:eu-*:123456789012:certificate-authority/*", true),
            ("arn:aws:*:certificate-authority/*", true),
            ("arn:aws:*:123456789012:certificate-authority/*", true),
            ("arn:aws:acm-pca:**", true),
            ("**", true),
        ] {
            let parsed = Pattern::try_from(pattern.to_owned()).unwrap();
            assert_eq!(parsed.leaves_region_open(), is_open, "{pattern}");
        }
    }
}
