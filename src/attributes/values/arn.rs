//! Amazon resource names of the three kinds that direct AWS Private CA needs.

/// `arn:PARTITION:acm-pca:REGION:ACCOUNT:certificate-authority/UUID`
pub(in crate::attributes) fn certificate_authority(text: &str) -> Result<String, String> {
    let arn = Arn::parse(text, "acm-pca")?;
    arn.has_region()?;
    arn.has_account()?;
    match arn.resource.strip_prefix("certificate-authority/") {
        Some(id) if is_uuid(id) => Ok(text.to_owned()),
        Some(_) => Err("does not end in the UUID of a certificate authority".into()),
        None => Err("does not name a certificate authority".into()),
    }
}

/// `arn:PARTITION:acm-pca:::template/NAME/V1`
pub(in crate::attributes) fn template(text: &str) -> Result<String, String> {
    let arn = Arn::parse(text, "acm-pca")?;
    if !arn.region.is_empty() || !arn.account.is_empty() {
        return Err("has a Region or an account, which templates do not".into());
    }
    let (name, version) = arn
        .resource
        .strip_prefix("template/")
        .and_then(|r| r.split_once('/'))
        .ok_or("does not name a template")?;
    let numbered =
        version.strip_prefix('V').is_some_and(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()));
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') || !numbered {
        return Err("does not name a template and its version".into());
    }
    Ok(text.to_owned())
}

/// `arn:PARTITION:iam::ACCOUNT:role/PATH/NAME`
pub(in crate::attributes) fn role(text: &str) -> Result<String, String> {
    let arn = Arn::parse(text, "iam")?;
    if !arn.region.is_empty() {
        return Err("has a Region, which roles do not".into());
    }
    arn.has_account()?;
    let name = arn.resource.strip_prefix("role/").ok_or("does not name a role")?;
    let name_byte = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@-_".contains(&b);
    if !name.split('/').all(|part| !part.is_empty() && part.bytes().all(name_byte)) {
        return Err("does not name a role".into());
    }
    Ok(text.to_owned())
}

/// `arn:partition:service:region:account:resource`, the service already checked.
struct Arn<'a> {
    region: &'a str,
    account: &'a str,
    resource: &'a str,
}

impl<'a> Arn<'a> {
    fn parse(text: &'a str, service: &str) -> Result<Self, String> {
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (scheme, partition, named, region, account, resource) =
            (next(), next(), next(), next(), next(), next());
        // `aws`, `aws-cn`, `aws-us-gov`, and whatever partition is opened next.
        let known = partition == "aws"
            || partition
                .strip_prefix("aws-")
                .is_some_and(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
        if scheme != "arn" || !known {
            return Err("is not an ARN of an AWS partition".into());
        }
        if named != service {
            return Err(format!("is not an ARN of the service {service}"));
        }
        Ok(Self { region, account, resource })
    }

    fn has_region(&self) -> Result<(), String> {
        let region_byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if self.region.is_empty() || !self.region.bytes().all(region_byte) {
            return Err("has no Region".into());
        }
        Ok(())
    }

    fn has_account(&self) -> Result<(), String> {
        if self.account.len() != 12 || !self.account.bytes().all(|b| b.is_ascii_digit()) {
            return Err("has no account of 12 digits".into());
        }
        Ok(())
    }
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "arn:aws:acm-pca:eu-central-1:123456789012:certificate-authority/11111111-2222-3333-4444-555555555555";

    #[test]
    fn arns_of_every_partition_pass() {
        for partition in ["aws", "aws-cn", "aws-us-gov"] {
            let arn = CA.replacen("aws", partition, 1);
            assert_eq!(certificate_authority(&arn), Ok(arn.clone()));
            assert!(template(&format!("arn:{partition}:acm-pca:::template/EndEntityCertificate/V1")).is_ok());
            assert!(role(&format!("arn:{partition}:iam::123456789012:role/pca/issuer")).is_ok());
        }
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "arn",
            "aws:acm-pca",
            &CA.replace("arn:aws", "arn:gcp"),
            &CA.replace("acm-pca", "acm"),
            &CA.replace("eu-central-1", ""),
            &CA.replace("eu-central-1", "EU"),
            &CA.replace("123456789012", "12345"),
            &CA.replace("certificate-authority", "certificate"),
            &CA.replace("-5555", "5555"),
            &CA.replace("5555", "zzzz"),
            &format!("{CA}/certificate/1"),
        ] {
            assert!(certificate_authority(text).is_err(), "{text}");
        }
        for text in [
            "",
            CA,
            "arn:aws:acm-pca:::template/",
            "arn:aws:acm-pca:::template/A",
            "arn:aws:acm-pca:::template/A/1",
        ] {
            assert!(template(text).is_err(), "{text}");
        }
        for text in [
            "",
            CA,
            "arn:aws:iam::123456789012:user/a",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::1:role/a",
        ] {
            assert!(role(text).is_err(), "{text}");
        }
    }
}
