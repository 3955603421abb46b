//! The attributes of a sidecar: of its flags, and of the pod's annotations in a file of the downward API.

use crate::attributes::AttributeError;
use crate::model::{Dialect, RawAttributes, shown};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Limit on the file. Kubernetes accepts 256 KiB of annotations, and the file writes a byte as four at most.
const MAX_FILE_BYTES: u64 = 2 << 20;
/// Where attributes come from, as errors name it.
const FILE_FLAG: &str = "--attributes-file";

/// Where the attributes come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct AttributeSources {
    /// `--attributes`: names, with or without prefix, and values.
    pub(crate) given: Vec<(String, String)>,
    /// `--attributes-file`
    pub(crate) file: Option<PathBuf>,
}

impl AttributeSources {
    /// All attributes with their full names. The error lists what cannot be read, and what is there twice with different values.
    pub(crate) fn read(&self) -> Result<RawAttributes, Vec<AttributeError>> {
        let mut all: Vec<(String, String)> = Vec::new();
        let mut faults = Vec::new();
        let annotations = self.file.as_deref().map_or_else(|| Ok(Vec::new()), annotations);
        let annotations = annotations.unwrap_or_else(|fault| {
            faults.push(fault);
            Vec::new()
        });
        let given = self.given.iter().map(|(name, value)| (full(name), value.clone()));
        for (name, value) in given.chain(annotations.into_iter().filter(|(name, _)| is_attribute(name))) {
            match all.iter().find(|(known, _)| *known == name) {
                Some((_, known)) if *known != value => {
                    let accepted = "one value, in --attributes or in an annotation of the pod";
                    faults.push(AttributeError::new(name, "is given twice, with different values", accepted));
                }
                Some(_) => {}
                None => all.push((name, value)),
            }
        }
        if faults.is_empty() { Ok(all.into_iter().collect()) } else { Err(faults) }
    }
}

/// The name with its prefix.
fn full(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{}/{name}", Dialect::Certlet.prefix()) }
}

/// Whether an annotation is an attribute.
fn is_attribute(name: &str) -> bool {
    let prefix = name.split_once('/').map(|(prefix, _)| prefix);
    [Dialect::Certlet, Dialect::CertManager, Dialect::CsiDriverSpiffe]
        .iter()
        .any(|dialect| prefix == Some(dialect.prefix()))
}

/// The annotations in a file of the downward API (`metadata.annotations`): each line a key, `=`, and the value as a quoted string of Go.
fn annotations(path: &Path) -> Result<Vec<(String, String)>, AttributeError> {
    let fault = |problem: String| {
        let accepted = "a file of a downwardAPI volume with the field metadata.annotations";
        AttributeError::new(FILE_FLAG, format!("{} {problem}", path.display()), accepted)
    };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
    match read {
        Err(error) => return Err(fault(format!("cannot be read: {error}"))),
        Ok(length) if length as u64 > MAX_FILE_BYTES => {
            return Err(fault(format!("has more than {MAX_FILE_BYTES} bytes")));
        }
        Ok(_) => {}
    }
    let annotation = |line: &str| {
        let (key, quoted) = line.split_once('=')?;
        Some((key.to_owned(), unquoted(quoted)?))
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(number, line)| {
            annotation(line).ok_or_else(|| {
                let begin: String = line.chars().take(40).collect();
                fault(format!("has in line {} {}, which is no annotation", number + 1, shown(&begin)))
            })
        })
        .collect()
}

/// A quoted string of Go, as `strconv.Quote` writes it; none if it is not one.
fn unquoted(text: &str) -> Option<String> {
    let mut rest = text.strip_prefix('"')?.strip_suffix('"')?.chars();
    let mut value = String::with_capacity(text.len());
    while let Some(next) = rest.next() {
        value.push(match next {
            '"' => return None,
            '\\' => match rest.next()? {
                'a' => '\u{7}',
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\u{b}',
                same @ ('\\' | '"') => same,
                'x' => code(&mut rest, 2).filter(char::is_ascii)?,
                'u' => code(&mut rest, 4)?,
                'U' => code(&mut rest, 8)?,
                _ => return None,
            },
            plain => plain,
        });
    }
    Some(value)
}

/// The character with the code that these hexadecimal digits are.
fn code(digits: &mut impl Iterator<Item = char>, count: usize) -> Option<char> {
    let code =
        (0..count).try_fold(0_u32, |code, _| Some(code.checked_mul(16)? + digits.next()?.to_digit(16)?))?;
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[(&str, &str)], file: &str) -> Result<Vec<(String, String)>, String> {
        let written = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(written.path(), file).unwrap();
        let given = given.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let sources = AttributeSources { given, file: Some(written.path().to_owned()) };
        let joined = |faults: Vec<AttributeError>| {
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let raw = sources.read().map_err(joined)?;
        Ok(raw.map().iter().map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn annotations_with_a_known_prefix_are_attributes_beside_those_of_the_flags() {
        let file = "certlet.io/inject=\"true\"\ncsi.certlet.io/dns-names=\"a,b\"\nkubernetes.io/x=\"multi\\nline\"\n";
        assert_eq!(
            read(&[("issuer-name", "ca"), ("csi.certlet.io/dns-names", "a,b")], file).unwrap(),
            pairs(&[("csi.certlet.io/dns-names", "a,b"), ("csi.certlet.io/issuer-name", "ca")])
        );
        let peers = "csi.cert-manager.io/issuer-name=\"ca\"\nspiffe.csi.cert-manager.io/fs-group=\"7\"";
        assert_eq!(read(&[], peers).unwrap().len(), 2);
    }

    #[test]
    fn values_are_unquoted_as_go_quotes_them() {
        for (quoted, value) in [
            (r#""plain é""#, Some("plain é")),
            (r#""a\tb\n\"c\" \\d""#, Some("a\tb\n\"c\" \\d")),
            (r#""\x00\u200b\U0001f600\a\b\f\r\v""#, Some("\0\u{200b}\u{1f600}\u{7}\u{8}\u{c}\r\u{b}")),
            (r#""""#, Some("")),
            ("plain", None),
            (r#""half"#, None),
            (r#"""#, None),
            (r#""a"b""#, None),
            (r#""\q""#, None),
            (r#""\xff""#, None),
            (r#""\u12""#, None),
            (r#""\ud800""#, None),
            (r#""\Uffffffff""#, None),
            (r#""\""#, None),
        ] {
            assert_eq!(unquoted(quoted).as_deref(), value, "{quoted}");
        }
    }

    #[test]
    fn faults_name_the_attribute_or_the_line() {
        let error = read(&[("dns-names", "a")], "csi.certlet.io/dns-names=\"b\"").unwrap_err();
        assert!(
            error.starts_with("csi.certlet.io/dns-names: is given twice, with different values"),
            "{error}"
        );
        let error = read(&[], "a=\"b\"\n\nnone\n").unwrap_err();
        assert!(error.contains("has in line 3 \"none\", which is no annotation"), "{error}");
        let missing = AttributeSources { given: Vec::new(), file: Some("/nonexistent".into()) };
        let error = missing.read().unwrap_err().remove(0).to_string();
        assert!(error.starts_with("--attributes-file: /nonexistent cannot be read"), "{error}");
    }
}
