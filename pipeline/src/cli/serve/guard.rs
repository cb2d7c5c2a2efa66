//! Who may ask: a browser that shows our own page, or a program on this machine. Everything else is refused before it
//! is read.
//!
//! Binding to the loopback interface keeps other machines out, but not pages of other sites in the user's own browser.
//! Such a page can send requests here (`Origin` and `Sec-Fetch-Site` tell), and by pointing a name of its own at
//! 127.0.0.1 it can pretend to be of this site (DNS rebinding; `Host` tells). Nothing can be changed from a page: there
//! is no method but reading. Knows no routes.

use super::asked::{Answered, Asked, Refusal, wrong};

/// Whether a request may be answered.
///
/// # Errors
/// Why not.
pub fn check(asked: &Asked) -> Answered<()> {
    if !["GET", "HEAD"].contains(&asked.method.as_str()) {
        return Err(refused(405, "this page only shows: nothing can be sent to it"));
    }
    let host = asked.header("host").map(str::to_ascii_lowercase).filter(|host| is_loopback(host));
    let Some(host) = host else {
        return Err(refused(421, "this server answers to the names 127.0.0.1 and localhost alone"));
    };
    let own = format!("http://{host}");
    if asked.has("origin") && asked.header("origin") != Some(own.as_str()) {
        return Err(refused(403, "pages of other sites are not answered"));
    }
    // `none`: the user typed the address or followed a bookmark
    let own = matches!(asked.header("sec-fetch-site"), Some("same-origin" | "none"));
    if asked.has("sec-fetch-site") && !own && !is_followed(asked) {
        return Err(refused(403, "pages of other sites are not answered"));
    }
    let (path, _) = asked.parts()?;
    let odd = |part: &str| part == ".." || part == "." || part.contains(['\\', '\0']);
    if !path.starts_with('/') || path.split('/').any(odd) {
        return Err(wrong("that is no address of this page"));
    }
    Ok(())
}

/// Whether a name is one that only this machine has. The port may be another than ours: what is forwarded (`ssh -L
/// 9000:localhost:7979`) is asked for by the port where it begins. A name that somebody points at us stays another
/// name.
fn is_loopback(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "80"));
    let digits = (1..=5).contains(&port.len()) && port.bytes().all(|c| c.is_ascii_digit());
    ["127.0.0.1", "localhost"].contains(&name) && digits
}

/// Whether the user followed a link to our first page from another page of this machine. The browser leaves that page
/// for ours, and tells it nothing of what we answer.
fn is_followed(asked: &Asked) -> bool {
    let is = |name: &str, value: &str| asked.header(name) == Some(value);
    asked.target == "/"
        && asked.method == "GET"
        && !asked.has("origin")
        && is("sec-fetch-site", "same-site")
        && is("sec-fetch-mode", "navigate")
        && is("sec-fetch-dest", "document")
}

fn refused(status: u16, error: &str) -> Refusal {
    Refusal { status, error: error.into(), hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let asked = Asked { method: method.into(), target: target.into(), headers };
        check(&asked).map_or_else(|refusal| refusal.status, |()| 200)
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:80");

    #[test]
    fn only_our_own_page_and_programs_of_this_machine_are_answered() {
        assert_eq!(status("GET", "/", &[HOST]), 200);
        assert_eq!(status("HEAD", "/a?b=..", &[("host", "LocalHost:80"), ("sec-fetch-site", "none")]), 200);
        let own = [HOST, ("origin", "http://127.0.0.1:80"), ("sec-fetch-site", "same-origin")];
        assert_eq!(status("GET", "/", &own), 200);
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "get", ""] {
            assert_eq!(status(method, "/", &[HOST]), 405, "{method}");
        }
        for host in ["127.0.0.1", "127.0.0.1:81", "localhost", "localhost:9000"] {
            assert_eq!(status("GET", "/", &[("host", host)]), 200, "forwarded: {host}");
        }
        for host in [
            "evil.example",
            "evil.example:80",
            "127.0.0.1.evil.example:80",
            "127.0.0.1:80.evil.example",
            "127.0.0.1:",
            "127.0.0.1:80:80",
            "127.0.0.1:123456",
            "localhost.evil.example",
            "evil.localhost:80",
            "user@127.0.0.1:80",
            "127.0.0.2:80",
            "[::1]:80",
            "",
        ] {
            assert_eq!(status("GET", "/", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(status("GET", "/", &[]), 421);
        assert_eq!(status("GET", "/", &[HOST, HOST]), 421, "two names are none");
        for origin in ["null", "http://evil.example", "https://127.0.0.1:80", "http://localhost:80", ""] {
            assert_eq!(status("GET", "/", &[HOST, ("origin", origin)]), 403, "{origin}");
        }
        for site in ["cross-site", "same-site", "nonsense"] {
            assert_eq!(status("GET", "/", &[HOST, ("sec-fetch-site", site)]), 403, "{site}");
        }
    }

    #[test]
    fn a_link_from_another_page_of_this_machine_leads_to_the_first_page_alone() {
        let followed =
            [HOST, ("sec-fetch-site", "same-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        assert_eq!(status("GET", "/", &followed), 200);
        assert_eq!(status("GET", "/api/runs", &followed), 403, "data are not first pages");
        assert_eq!(status("GET", "/?x", &followed), 403);
        assert_eq!(status("HEAD", "/", &followed), 403);
        for (at, other) in [
            (1, ("sec-fetch-site", "cross-site")),
            (2, ("sec-fetch-mode", "no-cors")),
            (2, ("sec-fetch-mode", "cors")),
            (3, ("sec-fetch-dest", "iframe")),
            (3, ("sec-fetch-dest", "empty")),
        ] {
            let mut asked = followed;
            asked[at] = other;
            assert_eq!(status("GET", "/", &asked), 403, "{other:?}");
        }
        let sent = [&followed[..], &[("origin", "http://localhost:3000")]].concat();
        assert_eq!(status("GET", "/", &sent), 403, "what a script sends has an origin");
    }

    #[test]
    fn paths_lead_nowhere_else() {
        for target in
            ["/../etc/passwd", "/a/%2e%2e/b", "/a/..%2fb", "/%5c..%5c", "/a%00", "http://127.0.0.1:80/", "*", "", "/./"]
        {
            assert_eq!(status("GET", target, &[HOST]), 400, "{target}");
        }
        assert_eq!(status("GET", "/a..b/c...", &[HOST]), 200);
    }
}
