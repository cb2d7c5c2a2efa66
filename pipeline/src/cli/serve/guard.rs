//! Who may ask: a browser that shows our own page, or a program on this machine. Everything else is refused before it is read.
//!
//! Binding to the loopback interface keeps other machines out, but not pages of other sites in the user's own browser. Such a page
//! can send requests here (`Origin` and `Sec-Fetch-Site` tell), and by pointing a name of its own at 127.0.0.1 it can pretend to be
//! of this site (DNS rebinding; `Host` tells). Nothing can be changed from a page: there is no method but reading. Knows no routes.

use super::asked::{Answered, Asked, Refusal, wrong};

/// Whether a request to the server on this port may be answered.
///
/// # Errors
/// Why not.
pub fn check(asked: &Asked, port: u16) -> Answered<()> {
    if !["GET", "HEAD"].contains(&asked.method.as_str()) {
        return Err(refused(405, "this page only shows: nothing can be sent to it"));
    }
    let hosts = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let host = asked.header("host").map(str::to_ascii_lowercase).filter(|host| hosts.contains(host));
    let Some(host) = host else {
        return Err(refused(421, "this server answers to the names 127.0.0.1 and localhost alone"));
    };
    let own = format!("http://{host}");
    if asked.has("origin") && asked.header("origin") != Some(own.as_str()) {
        return Err(refused(403, "pages of other sites are not answered"));
    }
    // `none`: the user typed the address or followed a bookmark
    if asked.has("sec-fetch-site") && !matches!(asked.header("sec-fetch-site"), Some("same-origin" | "none")) {
        return Err(refused(403, "pages of other sites are not answered"));
    }
    let (path, _) = asked.parts()?;
    let odd = |part: &str| part == ".." || part == "." || part.contains(['\\', '\0']);
    if !path.starts_with('/') || path.split('/').any(odd) {
        return Err(wrong("that is no address of this page"));
    }
    Ok(())
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
        check(&asked, 80).map_or_else(|refusal| refusal.status, |()| 200)
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
        for host in
            ["evil.example", "127.0.0.1", "127.0.0.1:81", "127.0.0.1:80.evil.example", "localhost", "[::1]:80", ""]
        {
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
    fn paths_lead_nowhere_else() {
        for target in
            ["/../etc/passwd", "/a/%2e%2e/b", "/a/..%2fb", "/%5c..%5c", "/a%00", "http://127.0.0.1:80/", "*", "", "/./"]
        {
            assert_eq!(status("GET", target, &[HOST]), 400, "{target}");
        }
        assert_eq!(status("GET", "/a..b/c...", &[HOST]), 200);
    }
}
