//! Patterns for names, with `*`, `**` and variables.

use crate::model::WorkloadIdentity;
use serde::Deserialize;
use std::fmt;

/// A valid pattern.
///
/// `*` matches any text within one part of a name, `**` matches any text. The separators of parts depend on the [`Kind`] of the
/// name. Neither matches an asterisk in the name: only `{wildcard}` does, so that nobody gets a wildcard certificate by
/// accident. `{namespace}`, `{serviceAccount}` and `{pod}` match exactly those of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Pattern {
    /// The pattern as written.
    pub(super) text: String,
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
pub(super) enum Kind {
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

impl Kind {
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
    /// Whether a name fits.
    pub(super) fn fits(&self, name: &str, kind: Kind, pod: &WorkloadIdentity) -> bool {
        fits(&self.pieces, name, kind, pod)
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

fn fits(pieces: &[Piece], name: &str, kind: Kind, pod: &WorkloadIdentity) -> bool {
    let Some((piece, others)) = pieces.split_first() else { return name.is_empty() };
    let literal = |text: &str| {
        let head = name.get(..text.len());
        let same = head.is_some_and(|head| match kind {
            Kind::Dns => head.eq_ignore_ascii_case(text),
            Kind::Path | Kind::Uri | Kind::Text | Kind::DistinguishedName => head == text,
        });
        same && fits(others, name.get(text.len()..).unwrap_or_default(), kind, pod)
    };
    match piece {
        Piece::Literal(text) => literal(text),
        Piece::Namespace => literal(&pod.namespace),
        Piece::ServiceAccount => literal(&pod.service_account),
        Piece::Pod => literal(&pod.name),
        Piece::Part | Piece::Anything => {
            let stops = |c: char| c == '*' || (*piece == Piece::Part && kind.separators().contains(&c));
            let reach = name.find(stops).unwrap_or(name.len());
            // A part is never empty: `*.example.org` does not match `.example.org`.
            let least = usize::from(*piece == Piece::Part);
            let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            ends.filter(|at| (least..=reach).contains(at))
                .any(|at| fits(others, name.get(at..).unwrap_or_default(), kind, pod))
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x509::testing::pod;

    fn fit(pattern: &str, name: &str, kind: Kind) -> bool {
        Pattern::try_from(pattern.to_owned()).unwrap().fits(name, kind, &pod())
    }

    #[test]
    fn a_star_stays_within_one_label() {
        let pattern = "*.{namespace}.svc.cluster.local";
        assert!(fit(pattern, "web.shop.svc.cluster.local", Kind::Dns));
        assert!(fit(pattern, "WEB.Shop.svc.CLUSTER.local", Kind::Dns));
        for other in [
            "web.bank.svc.cluster.local",
            "a.web.shop.svc.cluster.local",
            ".shop.svc.cluster.local",
            "shop.svc.cluster.local",
            "web.shop.svc.cluster.local.evil.example",
        ] {
            assert!(!fit(pattern, other, Kind::Dns), "{other}");
        }
        assert!(fit("**.shop.svc", "a.b.shop.svc", Kind::Dns));
    }

    #[test]
    fn a_wildcard_certificate_needs_its_own_permission() {
        assert!(!fit("*.shop.svc", "*.shop.svc", Kind::Dns));
        assert!(!fit("**", "*.shop.svc", Kind::Dns));
        assert!(fit("{wildcard}.shop.svc", "*.shop.svc", Kind::Dns));
        assert!(!fit("{wildcard}.shop.svc", "a.shop.svc", Kind::Dns));
    }

    #[test]
    fn variables_match_exactly_those_of_the_pod() {
        let spiffe = "spiffe://example.org/ns/{namespace}/sa/{serviceAccount}";
        assert!(fit(spiffe, "spiffe://example.org/ns/shop/sa/web", Kind::Path));
        assert!(!fit(spiffe, "spiffe://example.org/ns/shop/sa/web/x", Kind::Path));
        assert!(!fit(spiffe, "spiffe://example.org/ns/shop/sa/Web", Kind::Path));
        let other = WorkloadIdentity { namespace: "*".into(), ..pod() };
        assert!(!Pattern::try_from("{namespace}.svc".to_owned()).unwrap().fits("any.svc", Kind::Dns, &other));
    }

    #[test]
    fn a_star_in_a_uri_stays_within_the_host() {
        let pattern = "https://*.example.org/**";
        assert!(fit(pattern, "https://web.example.org/a/b?c=d:e@f#g", Kind::Uri));
        for other in [
            "https://evil.com#.example.org/x",
            "https://evil.com?.example.org/x",
            "https://evil.com/.example.org/x",
            "https://evil.com:1@x.example.org/x",
            "https://evil@x.example.org/x",
            "https://evil.com:1.example.org/x",
        ] {
            assert!(!fit(pattern, other, Kind::Uri), "{other}");
            assert!(fit("https://**.example.org/x", other, Kind::Uri), "{other}");
        }
        assert!(!fit("spiffe://example.org/sa/*", "spiffe://example.org/sa/web?admin", Kind::Uri));
    }

    #[test]
    fn a_star_in_an_arn_stops_only_at_slashes() {
        let role = "arn:aws:iam::123456789012:role/shop-a@b";
        for pattern in ["arn:aws:iam::*:role/{namespace}-*", "*/shop-*", "arn:*:role/*"] {
            assert!(fit(pattern, role, Kind::Path), "{pattern}");
            assert!(!fit(pattern, &format!("{role}/c"), Kind::Path), "{pattern}");
        }
        assert!(fit("*/V1", "EndEntityCertificate/V1", Kind::Path), "a template is named without its ARN");
    }

    #[test]
    fn a_mistyped_variable_is_refused() {
        for invalid in ["{serviceaccount}", "{", "a}", "{pod", ""] {
            assert!(Pattern::try_from(invalid.to_owned()).is_err(), "{invalid:?}");
        }
    }
}
