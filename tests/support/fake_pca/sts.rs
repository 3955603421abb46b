//! STS: exchanges a token for the credentials of a role.

use super::{FakePca, Fault, ROLE};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

pub(super) fn answer(fake: &FakePca, form: &str) -> Response {
    let field = |name: &str| {
        let found = form.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        found.unwrap_or_default().replace("%40", "@").replace("%3A", ":").replace("%2F", "/")
    };
    let call = field("Action");
    let session = field("RoleSessionName");
    {
        let mut state = fake.state();
        *state.calls.entry(call.clone()).or_default() += 1;
        state.sessions.push(session);
    }
    let fault = fake.fault(&call);
    if let Some(Fault::LongAnswer) = fault {
        return super::long();
    }
    if let Some(Fault::Refuse(code, status)) = fault {
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}\
             </Code><Message>the fake says {code}</Message></Error><RequestId>1</RequestId></ErrorResponse>"
        );
        return (StatusCode::from_u16(status).unwrap(), [("content-type", "text/xml")], body).into_response();
    }
    assert_eq!((call.as_str(), field("RoleArn").as_str()), ("AssumeRoleWithWebIdentity", ROLE));
    assert_eq!(field("WebIdentityToken"), "pod-token");
    let body = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
        <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s\
        </SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
        </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
    ([("content-type", "text/xml")], body).into_response()
}
