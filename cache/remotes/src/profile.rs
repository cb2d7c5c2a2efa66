//! Credentials for S3 as its own tools keep them: `~/.aws/credentials` and `~/.aws/config`. Reads these two files and
//! no others, and knows nothing of remotes.

use std::path::Path;

/// Settings of a profile, under the names of the environment variables that mean the same.
pub(crate) fn settings(home: &Path, variables: &[(String, String)]) -> Vec<(String, String)> {
    let set = |name: &str| variables.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let profile = set("AWS_PROFILE").unwrap_or("default");
    let file = |variable: &str, name: &str| {
        let path = set(variable).map_or_else(|| home.join(".aws").join(name), Into::into);
        // without such a file there is nothing to be said by it
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let of_config = if profile == "default" { "default".into() } else { format!("profile {profile}") };
    let mut found = section(&file("AWS_CONFIG_FILE", "config"), &of_config);
    found.extend(section(&file("AWS_SHARED_CREDENTIALS_FILE", "credentials"), profile));
    let known = ["aws_access_key_id", "aws_secret_access_key", "aws_session_token", "region", "endpoint_url"];
    found.retain(|(name, _)| known.contains(&name.as_str()));
    found
        .into_iter()
        .map(|(name, value)| (format!("AWS_{}", name.trim_start_matches("aws_").to_uppercase()), value))
        .collect()
}

/// The lines `name = value` of one section.
fn section(text: &str, wanted: &str) -> Vec<(String, String)> {
    let (mut inside, mut found) = (false, Vec::new());
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        if let Some(name) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == wanted;
        } else if let (true, false, Some((name, value))) = (inside, line.starts_with([' ', '\t']), line.split_once('='))
        {
            found.push((name.trim().to_lowercase(), value.trim().to_string()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_profile_is_read_and_no_other() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(home.path().join(".aws").join(name), text).unwrap();
        assert!(settings(home.path(), &[]).is_empty());
        write(
            "config",
            "[default]\nregion = a\n[profile lab]\nregion=b\ns3 =\n  region = c\nendpoint_url = http://x\n",
        );
        write(
            "credentials",
            "# mine\n[default]\naws_access_key_id = one\n[lab]\nAWS_SECRET_ACCESS_KEY = t=w/o\nrole = no\n",
        );
        let pair = |name: &str, value: &str| (name.to_string(), value.to_string());
        assert_eq!(settings(home.path(), &[]), [pair("AWS_REGION", "a"), pair("AWS_ACCESS_KEY_ID", "one")]);
        assert_eq!(
            settings(home.path(), &[pair("AWS_PROFILE", "lab")]),
            [pair("AWS_REGION", "b"), pair("AWS_ENDPOINT_URL", "http://x"), pair("AWS_SECRET_ACCESS_KEY", "t=w/o")]
        );
    }
}
