//! HTTP as the hub needs it: the token goes to the hub alone, and silence ends.
//!
//! Over `ureq`. Redirects are followed here: the hub sends a client to other hosts for weights,
//! with signed addresses that want no token, and whoever can redirect must not collect tokens.

use std::io;
use std::time::Duration;

use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

const MAX_REDIRECTS: usize = 10;

/// How long the other side may be silent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Timeouts {
    /// Until a connection stands, and until an answer has begun.
    pub answer: Duration,
    /// Between two pieces of a file.
    pub idle: Duration,
}

/// A failed call.
#[derive(Debug)]
pub(super) struct CallFailure {
    pub what: String,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Whether a retry is pointless.
    pub lasting: bool,
}

impl CallFailure {
    /// A failure that a retry does not mend.
    pub fn lasting(what: impl Into<String>) -> CallFailure {
        CallFailure {
            what: what.into(),
            status: None,
            lasting: true,
        }
    }

    /// A failure that may pass.
    pub fn passing(what: impl Into<String>) -> CallFailure {
        CallFailure {
            lasting: false,
            ..CallFailure::lasting(what)
        }
    }

    fn of_status(status: u16) -> CallFailure {
        CallFailure {
            what: format!("it answers with the status {status}"),
            status: Some(status),
            lasting: status < 500 && !matches!(status, 408 | 429),
        }
    }
}

impl From<ureq::Error> for CallFailure {
    fn from(error: ureq::Error) -> CallFailure {
        match error {
            ureq::Error::Io(error) => error.into(),
            ureq::Error::Timeout(_) => CallFailure::passing(
                "it is silent for too long (HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT say \
                 for how many seconds it may be)",
            ),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::Tls(_) => {
                CallFailure::lasting(error.to_string())
            }
            _ => CallFailure::passing(error.to_string()),
        }
    }
}

impl From<io::Error> for CallFailure {
    /// Reading from the net and writing to the disk come as the same kind.
    fn from(error: io::Error) -> CallFailure {
        use io::ErrorKind::{NotADirectory, PermissionDenied, ReadOnlyFilesystem};
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.downcast::<ureq::Error>() {
            Ok(inner) => inner.into(),
            Err(error) => CallFailure {
                lasting: matches!(
                    error.kind(),
                    NotADirectory
                        | PermissionDenied
                        | ReadOnlyFilesystem
                        | QuotaExceeded
                        | StorageFull
                ),
                ..CallFailure::lasting(error.to_string())
            },
        }
    }
}

/// A client of one hub.
#[derive(Debug)]
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

impl Client {
    /// A client of the hub at `endpoint`, which alone is shown the token.
    pub fn new(endpoint: &str, token: Option<&str>, timeouts: Timeouts) -> Client {
        let config = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_resolve(Some(timeouts.answer))
            .timeout_connect(Some(timeouts.answer))
            .timeout_recv_response(Some(timeouts.answer))
            .timeout_per_read(Some(timeouts.idle))
            .timeout_per_write(Some(timeouts.idle))
            .user_agent(concat!("offshoot/", env!("CARGO_PKG_VERSION")))
            .build();
        Client {
            agent: config.new_agent(),
            endpoint: endpoint.to_string(),
            token: token.map(str::to_string),
        }
    }

    /// The answer to a GET of `url`, or of a `range` of its bytes. Redirects within the hub are
    /// followed; with `elsewhere` those to other hosts as well, else such a redirect is the answer.
    pub fn get(
        &self,
        url: &str,
        range: Option<&str>,
        elsewhere: bool,
    ) -> Result<Response<Body>, CallFailure> {
        let address = |text: &str| {
            let no_address = |_| CallFailure::lasting(format!("{text:?} is no address"));
            text.parse::<Uri>().map_err(no_address)
        };
        let hub = address(&self.endpoint)?;
        let mut uri = address(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.agent.get(&uri);
            if let Some(token) = self.token.as_ref().filter(|_| same_origin(&uri, &hub)) {
                request = request.header("Authorization", format!("Bearer {token}"));
            }
            if let Some(range) = range {
                request = request.header("Range", range);
            }
            let response = request.call()?;
            let status = response.status();
            if status.is_client_error() || status.is_server_error() {
                return Err(CallFailure::of_status(status.as_u16()));
            }
            if !status.is_redirection() {
                return Ok(response);
            }
            let Some(location) = header(&response, "Location") else {
                return Err(CallFailure::lasting("it redirects without saying where to"));
            };
            let next = address(&absolute(&uri, location))?;
            if !elsewhere && !same_origin(&next, &hub) {
                return Ok(response);
            }
            uri = next;
        }
        Err(CallFailure::lasting("it redirects without end"))
    }
}

/// A header's text.
pub(super) fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// Whether two addresses are of one scheme, host and port: only then are they trusted alike.
fn same_origin(a: &Uri, b: &Uri) -> bool {
    let origin = |uri: &Uri| {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().or(match &*scheme {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        });
        Some((scheme, uri.host()?.to_ascii_lowercase(), port))
    };
    origin(a).is_some_and(|found| origin(b) == Some(found))
}

/// The address that a `Location` header means at `base` (RFC 3986, section 5.2, without dots).
fn absolute(base: &Uri, location: &str) -> String {
    let location = location.split('#').next().unwrap_or_default();
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map_or("", |authority| authority.as_str());
    let path = base.path();
    let has_scheme = (location.split_once("://"))
        .is_some_and(|(scheme, _)| scheme.chars().all(|c| c.is_ascii_alphanumeric()));
    if has_scheme {
        location.to_string()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let folder = &path[..path.rfind('/').map_or(0, |end| end + 1)];
        format!("{scheme}://{authority}{folder}{location}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let uri = |text: &str| text.parse::<Uri>().expect("an address");
        let base = uri("https://hub.co/org/m/resolve/main/f?x=1");
        for (location, expected) in [
            ("https://cdn.co/a?b#c", "https://cdn.co/a?b"),
            ("//cdn.co/a", "https://cdn.co/a"),
            ("/a/b", "https://hub.co/a/b"),
            ("g", "https://hub.co/org/m/resolve/main/g"),
            // A query may hold an address.
            ("/a?u=http://x/", "https://hub.co/a?u=http://x/"),
        ] {
            assert_eq!(absolute(&base, location), expected, "{location}");
        }
        for (other, same) in [
            ("https://hub.co/x", true),
            ("https://HUB.co:443/", true),
            ("http://hub.co/", false),
            ("https://hub.co:444/", false),
            ("https://hub.co.evil/", false),
            ("https://evil/hub.co", false),
            ("https://hub.co@evil/", false),
        ] {
            assert_eq!(same_origin(&base, &uri(other)), same, "{other}");
        }
    }
}
