//! An object store as a remote: the only file that names `object_store` and `tokio`, and the only one that waits for
//! futures. Large objects move in parts, each tried again by itself. Knows names and bytes.

use crate::{Surroundings, profile};
use cache::{Answer, Remote, Trouble};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Name;
use object_store::{
    ClientOptions, Error, GetOptions, GetRange, MultipartId, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload, RetryConfig,
};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Runtime};

/// Larger objects move in parts of this size.
const PART: usize = 8 << 20;
/// No store takes more parts of one object.
const MOST_PARTS: u64 = 10_000;
/// So many parts of one object are under way at the same time.
const SIDE_BY_SIDE: usize = 4;
/// So often each request is tried, and no more once so much time has passed.
const TRIES: (u32, Duration) = (7, Duration::from_secs(30));
/// The first pause between two of these, and the longest; each is three times as long as the one before.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A bucket, a container or a host, and a prefix in it.
pub(crate) struct Store {
    name: String,
    scheme: String,
    /// What stands behind the scheme, without a query.
    place: String,
    prefix: Name,
    surroundings: Surroundings,
    /// Made when something is first asked for: certificates alone take longer to read than a run with nothing to do.
    started: OnceLock<Answer<Started>>,
}

struct Started {
    store: Arc<dyn ObjectStore>,
    /// The same, if it takes large objects in parts.
    parts: Option<Arc<dyn MultipartStore>>,
    runtime: Runtime,
}

/// A store, and the same as one that takes parts.
type Both = (Arc<dyn ObjectStore>, Option<Arc<dyn MultipartStore>>);

fn both<S: ObjectStore + MultipartStore>(store: S) -> Both {
    let store = Arc::new(store);
    (store.clone(), Some(store))
}

impl Store {
    pub(crate) fn open(url: &str, surroundings: &Surroundings) -> Answer<Store> {
        let unknown = || {
            let text = "it is no URL of a remote: write dir:FOLDER, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, \
                        az://CONTAINER/PREFIX, http://HOST/PATH or https://HOST/PATH";
            Trouble(text.into())
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(unknown)?;
        let place = rest.split(['?', '#']).next().unwrap_or(rest).trim_end_matches('/');
        let (host, prefix) = place.split_once('/').unwrap_or((place, ""));
        if host.is_empty() || !["s3", "gs", "az", "http", "https"].contains(&scheme) {
            return Err(unknown());
        }
        let shown = place.rsplit_once('@').map_or(place, |(_, host)| host);
        Ok(Store {
            name: format!("{scheme}://{shown}"),
            scheme: scheme.into(),
            place: place.into(),
            // the path of a web address is part of what its client knows
            prefix: Name::from(if scheme.starts_with("http") { "" } else { prefix }),
            surroundings: surroundings.clone(),
            started: OnceLock::new(),
        })
    }

    fn start(&self) -> Answer<Started> {
        let bucket = self.place.split('/').next().unwrap_or_default();
        let (store, parts) = match self.scheme.as_str() {
            "s3" => s3(bucket, &self.surroundings)?,
            "gs" => google(bucket, &self.surroundings)?,
            "az" => azure(bucket, &self.surroundings)?,
            scheme => {
                let http = HttpBuilder::new().with_url(format!("{scheme}://{}", self.place)).with_retry(retry());
                let store = http.with_client_options(client(scheme == "http")).build().map_err(told)?;
                (Arc::new(store) as Arc<dyn ObjectStore>, None)
            }
        };
        // whoever waits does its own work; this thread only listens
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("remote").enable_all().build();
        let runtime = runtime.map_err(|error| Trouble(format!("no thread could be started for it: {error}")))?;
        Ok(Started { store, parts, runtime })
    }

    /// Whether the store can put an object only if there is none.
    fn is_conditional(&self) -> bool {
        !self.scheme.starts_with("http")
    }

    fn place(&self, name: &str) -> Name {
        Name::from_iter(self.prefix.parts().chain(Name::from(name).parts()))
    }

    fn started(&self) -> Answer<&Started> {
        self.started.get_or_init(|| self.start()).as_ref().map_err(Trouble::clone)
    }

    /// Makes a request, again and again if need be: the store itself is told not to.
    fn tried<T>(&self, work: impl AsyncFn(&dyn ObjectStore) -> Result<T, Error>) -> Answer<T> {
        let started = self.started()?;
        started.runtime.block_on(async {
            let (since, mut pause) = (Instant::now(), PAUSE.0);
            for tries in 1.. {
                match work(&*started.store).await {
                    Err(error) if may_pass(&error) && tries < TRIES.0 && since.elapsed() < TRIES.1 => {}
                    outcome => return outcome.map_err(told),
                }
                tokio::time::sleep(pause.mul_f64(scatter())).await;
                pause = (pause * 3).min(PAUSE.1);
            }
            unreachable!("the last try returns")
        })
    }

    /// A part of an object, or all of it; and how long the whole is.
    fn get(&self, name: &Name, range: Option<std::ops::Range<u64>>, limit: u64) -> Answer<Option<(Vec<u8>, u64)>> {
        self.tried(async |store| {
            let options = GetOptions { range: range.clone().map(GetRange::Bounded), ..GetOptions::default() };
            let got = match store.get_opts(name, options).await {
                Err(Error::NotFound { .. }) => return Ok(None),
                // the server knows no parts
                Err(Error::NotSupported { .. }) if range.is_some() => {
                    store.get_opts(name, GetOptions::default()).await?
                }
                // there is no first part of an empty object
                Err(error) if innermost(&error).contains("416 Range Not Satisfiable") => {
                    return Ok(Some((Vec::new(), 0)));
                }
                got => got?,
            };
            let length = got.meta.size;
            // of what is too long nobody wants to hear more
            let bytes = if length > limit { Vec::new() } else { got.bytes().await?.to_vec() };
            Ok(Some((bytes, length)))
        })
    }

    /// The next parts of an object, side by side; `None` for one of an object that is gone.
    fn parts(&self, place: &Name, at: u64, length: u64) -> Answer<Vec<Option<Vec<u8>>>> {
        let starts = (0..SIDE_BY_SIDE as u64).map(|n| at + n * PART as u64).filter(|start| *start < length);
        let get = |start: u64| {
            let end = length.min(start + PART as u64);
            match self.get(place, Some(start..end), length)? {
                Some((bytes, _)) if bytes.len() as u64 != end - start => Err(Trouble(format!("{place} ends early"))),
                got => Ok(got.map(|(bytes, _)| bytes)),
            }
        };
        std::thread::scope(|scope| {
            let get = &get;
            let threads: Vec<_> = starts.map(|start| scope.spawn(move || get(start))).collect();
            let panicked = |_| Err(Trouble("a thread that fetched a part of it failed".into()));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        })
    }

    /// Sends an object in parts, some of them side by side.
    fn write_parts(&self, name: &Name, file: &File, length: u64, store: &dyn MultipartStore) -> Answer<()> {
        let id = self.tried(async |_| store.create_multipart(name).await)?;
        let sent = self.send_parts((name, &id), file, length, store).and_then(|parts| {
            let put_together =
                self.tried(async |_| store.complete_multipart(name, &id, parts.clone()).await.map(|_| ()));
            match put_together {
                // an answer that was lost on its way: the next try finds nothing to put together any more
                Err(trouble) if self.length_of(name)? != Some(length) => Err(trouble),
                _ => Ok(()),
            }
        });
        if sent.is_err() {
            // parts that nobody puts together would be paid for
            let _ = self.started()?.runtime.block_on(store.abort_multipart(name, &id));
        }
        sent
    }

    fn send_parts(
        &self,
        (name, id): (&Name, &MultipartId),
        file: &File,
        length: u64,
        store: &dyn MultipartStore,
    ) -> Answer<Vec<PartId>> {
        let size = Store::part_of(length) as u64;
        let count = length.div_ceil(size);
        let next = AtomicU64::new(0);
        let work = || {
            let mut sent = Vec::new();
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= count {
                    return Ok(sent);
                }
                let part = read_at(file, n * size, size.min(length - n * size))
                    .map_err(|error| Trouble(format!("cannot read what is to be sent: {error}")))
                    .and_then(|bytes| self.tried(async |_| store.put_part(name, id, n as usize, bytes.clone()).await));
                match part {
                    Ok(part) => sent.push((n, part)),
                    Err(trouble) => {
                        // the others need not go on
                        next.store(count, Ordering::Relaxed);
                        return Err(trouble);
                    }
                }
            }
        };
        let mut parts = Vec::new();
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..SIDE_BY_SIDE).map(|_| scope.spawn(work)).collect();
            let panicked = |_| Err(Trouble("a thread that sent a part of it failed".into()));
            threads.into_iter().try_for_each(|thread| {
                parts.extend(thread.join().unwrap_or_else(panicked)?);
                Ok(())
            })
        })?;
        parts.sort_unstable_by_key(|(n, _)| *n);
        Ok(parts.into_iter().map(|(_, part)| part).collect())
    }

    fn length_of(&self, name: &Name) -> Answer<Option<u64>> {
        self.tried(async |store| match store.head(name).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        })
    }

    fn part_of(length: u64) -> usize {
        PART.max(length.div_ceil(MOST_PARTS) as usize)
    }
}

impl Remote for Store {
    fn name(&self) -> &str {
        &self.name
    }

    fn length(&self, name: &str) -> Answer<Option<u64>> {
        self.length_of(&self.place(name))
    }

    fn read(&self, name: &str, limit: u64, to: &mut dyn Write) -> Answer<Option<u64>> {
        let (place, part) = (self.place(name), PART as u64);
        let mut write =
            |bytes: &[u8]| to.write_all(bytes).map_err(|error| Trouble(format!("cannot keep what came: {error}")));
        let first = self.get(&place, (limit > part).then_some(0..part), limit)?;
        let Some((bytes, length)) = first else { return Ok(None) };
        if length > limit {
            return Ok(Some(limit + 1));
        }
        write(&bytes)?;
        let mut at = bytes.len() as u64;
        while at < length {
            for bytes in self.parts(&place, at, length)? {
                let Some(bytes) = bytes else { return Ok(None) };
                write(&bytes)?;
                at += bytes.len() as u64;
            }
        }
        Ok(Some(at))
    }

    fn write(&self, name: &str, file: &Path) -> Answer<()> {
        let name = self.place(name);
        let here = |error: std::io::Error| Trouble(format!("cannot read what is to be sent: {error}"));
        let file = File::open(file).map_err(here)?;
        let length = file.metadata().map_err(here)?.len();
        match &self.started()?.parts {
            Some(parts) if length > 2 * PART as u64 => self.write_parts(&name, &file, length, &**parts),
            _ => {
                let bytes = read_at(&file, 0, length).map_err(here)?;
                self.tried(async |store| store.put(&name, bytes.clone()).await.map(|_| ()))
            }
        }
    }

    fn write_new(&self, name: &str, bytes: &[u8]) -> Answer<bool> {
        if !self.is_conditional() && self.length(name)?.is_some() {
            return Ok(false);
        }
        let name = self.place(name);
        let mode = if self.is_conditional() { PutMode::Create } else { PutMode::Overwrite };
        self.tried(async |store| {
            let options = PutOptions::from(mode.clone());
            match store.put_opts(&name, PutPayload::from(bytes.to_vec()), options).await {
                Ok(_) => Ok(true),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    fn set_aside(&self, name: &str) -> Answer<()> {
        let (from, to) = (self.place(name), self.place(&format!("quarantine/{name}")));
        self.tried(async |store| match store.rename(&from, &to).await {
            Err(Error::NotFound { .. }) => Ok(()),
            moved => moved,
        })
    }

    fn list(&self, folder: &str) -> Answer<Vec<String>> {
        let (prefix, skip) = (self.place(folder), self.prefix.parts().count());
        let mut open = vec![prefix];
        let mut names = Vec::new();
        while let Some(prefix) = open.pop() {
            let found = self.tried(async |store| store.list_with_delimiter(Some(&prefix)).await)?;
            open.extend(found.common_prefixes);
            names.extend(found.objects.iter().map(|object| {
                object.location.parts().skip(skip).map(|part| part.as_ref().to_string()).collect::<Vec<_>>().join("/")
            }));
        }
        Ok(names)
    }
}

/// Bytes of a file.
fn read_at(file: &File, at: u64, length: u64) -> std::io::Result<PutPayload> {
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at)?;
    Ok(PutPayload::from(bytes))
}

/// Between 0.5 and 1, by the clock: those who have failed together need not come again together.
fn scatter() -> f64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.subsec_nanos());
    0.5 + f64::from(nanos % 1_000_000) / 2_000_000.0
}

fn s3(bucket: &str, surroundings: &Surroundings) -> Answer<Both> {
    let variables = &surroundings.variables;
    let mut settings = surroundings.home.as_deref().map_or(Vec::new(), |home| profile::settings(home, variables));
    // what is set in the environment holds; half a pair of keys would fit no other half
    let names_key = |(name, _): &(String, String)| name == "AWS_ACCESS_KEY_ID";
    if variables.iter().any(names_key) {
        settings.retain(|(name, _)| name == "AWS_REGION" || name == "AWS_ENDPOINT_URL");
    }
    settings.extend(variables.iter().cloned());
    let mut builder = AmazonS3Builder::new();
    let mut http = false;
    for (name, value) in settings {
        if let (true, Ok(key)) = (name.starts_with("AWS_"), name.to_lowercase().parse()) {
            http |= name.starts_with("AWS_ENDPOINT_URL") && value.starts_with("http://");
            builder = builder.with_config(key, value);
        }
    }
    let builder = builder.with_bucket_name(bucket).with_retry(retry()).with_client_options(client(http));
    Ok(both(builder.build().map_err(told)?))
}

fn google(bucket: &str, surroundings: &Surroundings) -> Answer<Both> {
    let mut builder = GoogleCloudStorageBuilder::new().with_bucket_name(bucket);
    for (name, value) in &surroundings.variables {
        if let (true, Ok(key)) = (name.starts_with("GOOGLE_"), name.to_lowercase().parse()) {
            builder = builder.with_config(key, value);
        }
    }
    // only the file of a service account names another host, as for an emulator
    Ok(both(builder.with_retry(retry()).with_client_options(client(true)).build().map_err(told)?))
}

fn azure(container: &str, surroundings: &Surroundings) -> Answer<Both> {
    let mut builder = MicrosoftAzureBuilder::new().with_container_name(container);
    let mut http = false;
    for (name, value) in &surroundings.variables {
        if let (true, Ok(key)) = (name.starts_with("AZURE_"), name.to_lowercase().parse()) {
            http |= name.contains("ENDPOINT") && value.starts_with("http://");
            builder = builder.with_config(key, value);
        }
    }
    Ok(both(builder.with_retry(retry()).with_client_options(client(http)).build().map_err(told)?))
}

fn client(http: bool) -> ClientOptions {
    let options = ClientOptions::new().with_connect_timeout(Duration::from_secs(5));
    // of one request, which moves a part at most
    options.with_timeout(Duration::from_secs(120)).with_allow_http(http)
}

/// None of the store's own: `tried` knows better what may be asked twice.
fn retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Whether another try may go better.
fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Generic { .. } | Error::JoinError { .. }) && !is_refused(error)
}

/// Whether the store does not let us: what lists has no kind of error for it, and tells in words.
fn is_refused(error: &Error) -> bool {
    let told =
        |error: &Error| ["401 Unauthorized", "403 Forbidden"].iter().any(|words| innermost(error).contains(words));
    matches!(error, Error::PermissionDenied { .. } | Error::Unauthenticated { .. }) || told(error)
}

fn innermost(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// An error as one sentence: its innermost cause, without anything that may be secret.
fn told(error: Error) -> Trouble {
    match is_refused(&error) {
        true => Trouble("it refuses these credentials, or they may not do that".into()),
        false => Trouble(harmless(&innermost(&error))),
    }
}

/// A text in one line, not too long, without queries and passwords of URLs, where signatures and tokens stand, and
/// without the document that a server may have sent.
fn harmless(text: &str) -> String {
    let text = text.split('<').next().unwrap_or(text).trim_end_matches([' ', ':']);
    let words = text.split_whitespace().map(|word| {
        let plain = word.split('?').next().unwrap_or(word);
        match plain.split_once("://") {
            Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, host)| host)),
            None => plain.to_string(),
        }
    });
    let line = words.collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(300) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_tell_no_secrets() {
        let text = "error for url (https://me:pw@host/a?sig=SECRET&x=1) after\n3 tries";
        assert_eq!(harmless(text), "error for url (https://host/a after 3 tries");
        assert!(harmless(&"long ".repeat(200)).chars().count() < 310);
    }

    #[test]
    fn parts_are_never_too_many() {
        assert_eq!(Store::part_of(1 << 20), PART);
        let large = 1 << 40;
        assert!(large / Store::part_of(large) as u64 <= MOST_PARTS);
    }
}
