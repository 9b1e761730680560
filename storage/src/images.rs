//! Images: identity, the published index that reads go to, and its loading.
//!
//! Reads never touch the database: an immutable [`Index`] is published behind an `Arc` and replaced
//! as a whole after each change. An image's id is the digest of its configuration.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use oci_spec::image::ImageConfiguration;

use crate::blobs::Blobs;
use crate::db::{Database, from_unix};
use crate::digest::is_hex;
use crate::layers::Layers;
use crate::reference::Reference;
use crate::{Digest, LookupError, StoreError};

/// Digest of an image's configuration, as `sha256:<64 hex digits>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(Digest);

impl ImageId {
    /// `sha256:<hex>`.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The hexadecimal digits alone.
    pub fn hex(&self) -> &str {
        self.0.hex()
    }

    /// The first twelve digits, as tables show it.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// Checks the form.
    pub fn parse(text: &str) -> Option<Self> {
        Digest::parse(text).map(Self)
    }

    /// The id as a digest.
    pub fn digest(&self) -> &Digest {
        &self.0
    }
}

impl From<Digest> for ImageId {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl std::fmt::Display for ImageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An image of the store. Immutable; a changed name makes a new value.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the configuration.
    pub id: ImageId,
    /// The configuration, parsed.
    pub config: ImageConfiguration,
    /// The configuration, byte by byte.
    pub raw_config: Arc<[u8]>,
    /// Names as Docker shows them (`busybox:latest`, `localhost:5000/a/b:1`), sorted.
    pub tags: Vec<String>,
    /// `name@sha256:…` for each repository it was pulled from or pushed to, sorted.
    pub repo_digests: Vec<String>,
    /// Digest of the manifest it came with; `None` for images made here.
    pub manifest_digest: Option<String>,
    /// Sum of the unpacked layers' file sizes in bytes.
    pub size_bytes: u64,
    /// When it was created, by its configuration.
    pub created: Option<SystemTime>,
    /// When it last got a name here.
    pub last_tagged: Option<SystemTime>,
    /// The image it was made from here, by a commit; pulled images have none.
    pub parent: Option<ImageId>,
    /// Diff ids, lowest first.
    pub(crate) layers: Arc<[Digest]>,
    /// Manifests and indexes it holds on to, with their media types.
    pub(crate) documents: Arc<[Document]>,
}

/// A manifest or an index in the blob directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Digest of its bytes.
    pub digest: Digest,
    /// As the registry named it.
    pub media_type: String,
}

impl Image {
    /// Diff ids of its layers, lowest first.
    pub fn layers(&self) -> &[Digest] {
        &self.layers
    }

    /// Manifests and indexes it came with; their bytes are [`Store::blob`](crate::Store::blob)'s.
    pub fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// Neither a tag nor a repository digest names it.
    pub(crate) fn is_nameless(&self) -> bool {
        self.tags.is_empty() && self.repo_digests.is_empty()
    }

    /// An image without names from its configuration.
    pub(crate) fn from_config(raw_config: Vec<u8>) -> Result<Self, StoreError> {
        let id = ImageId(Digest::of(&raw_config));
        let config: ImageConfiguration = serde_json::from_slice(&raw_config)
            .map_err(|e| StoreError::damaged(format!("image configuration {id}: {e}")))?;
        let layers: Option<Arc<[Digest]>> =
            config.rootfs().diff_ids().iter().map(|d| Digest::parse(d)).collect();
        let layers = layers.ok_or_else(|| {
            StoreError::damaged(format!("image configuration {id}: a diff id is malformed"))
        })?;
        let created = config
            .created()
            .as_ref()
            .and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok())
            .map(SystemTime::from);
        Ok(Self {
            id,
            config,
            raw_config: raw_config.into(),
            tags: vec![],
            repo_digests: vec![],
            manifest_digest: None,
            size_bytes: 0,
            created,
            last_tagged: None,
            parent: None,
            layers,
            documents: [].into(),
        })
    }
}

/// All images at one moment.
#[derive(Debug, Default)]
pub(crate) struct Index {
    by_id: BTreeMap<ImageId, Arc<Image>>,
    /// Tags and repository digests.
    by_name: HashMap<String, ImageId>,
    newest_first: Vec<Arc<Image>>,
}

impl Index {
    pub fn new(images: impl IntoIterator<Item = Arc<Image>>) -> Self {
        let by_id: BTreeMap<_, _> = images.into_iter().map(|i| (i.id.clone(), i)).collect();
        let names = |i: &Arc<Image>| {
            let id = i.id.clone();
            i.tags.iter().chain(&i.repo_digests).map(move |n| (n.clone(), id.clone())).collect::<Vec<_>>()
        };
        let by_name = by_id.values().flat_map(names).collect();
        let mut newest_first: Vec<_> = by_id.values().cloned().collect();
        newest_first.sort_by_key(|i| std::cmp::Reverse(i.created));
        Self { by_id, by_name, newest_first }
    }

    /// The same index with some images put in or taken away.
    pub fn changed(&self, put: impl IntoIterator<Item = Image>, removed: &[ImageId]) -> Self {
        let mut images = self.by_id.clone();
        for id in removed {
            images.remove(id);
        }
        images.extend(put.into_iter().map(|i| (i.id.clone(), Arc::new(i))));
        Self::new(images.into_values())
    }

    pub fn newest_first(&self) -> &[Arc<Image>] {
        &self.newest_first
    }

    pub fn get(&self, id: &ImageId) -> Option<&Arc<Image>> {
        self.by_id.get(id)
    }

    /// By tag or repository digest, as [`Reference::key`] makes it.
    pub fn by_name(&self, name: &str) -> Option<&Arc<Image>> {
        self.by_id.get(self.by_name.get(name)?)
    }

    /// Images that were made from this one here.
    pub fn children<'a>(&'a self, id: &'a ImageId) -> impl Iterator<Item = &'a Arc<Image>> {
        self.newest_first.iter().filter(move |i| i.parent.as_ref() == Some(id))
    }

    /// Docker's order: a full id, a name, then an id prefix.
    pub fn find(&self, text: &str) -> Result<&Arc<Image>, LookupError> {
        let as_id = if is_hex(text, 64) { Digest::from_hex(text) } else { Digest::parse(text) };
        if let Some(digest) = as_id {
            return self.by_id.get(&ImageId(digest)).ok_or_else(|| LookupError::NotFound(text.into()));
        }
        let reference = Reference::parse(text)?;
        if let Some(image) = self.by_name(&reference.key()) {
            return Ok(image);
        }
        self.by_prefix(text)?.ok_or_else(|| LookupError::NotFound(reference.or_latest().familiar()))
    }

    fn by_prefix(&self, text: &str) -> Result<Option<&Arc<Image>>, LookupError> {
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || hex.len() > 64 || !is_hex(hex, hex.len()) {
            return Ok(None);
        }
        let lowest =
            ImageId(Digest::from_hex(&format!("{hex:0<64}")).expect("it was checked to be hexadecimal"));
        let mut matching = self.by_id.range(lowest..).take_while(|(id, _)| id.hex().starts_with(hex));
        match (matching.next(), matching.next()) {
            (Some(_), Some(_)) => Err(LookupError::Ambiguous(text.into())),
            (first, _) => Ok(first.map(|(_, image)| image)),
        }
    }
}

/// Id, digest of the manifest, parent, Unix seconds of the last name given.
type ImageRow = (String, Option<String>, Option<String>, Option<i64>);

/// The published index. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Images {
    published: Arc<RwLock<Arc<Index>>>,
    /// Orders changes of images; held from the decision to the publication.
    write: Arc<tokio::sync::Mutex<()>>,
}

impl Images {
    /// Reads all images. One whose configuration is lost is reported and left out.
    pub async fn load(db: &Database, blobs: &Blobs, layers: &Layers) -> Result<Self, StoreError> {
        let rows: Vec<ImageRow> = sqlx::query_as("SELECT id, manifest_digest, parent, tagged_at FROM images")
            .fetch_all(db.state())
            .await?;
        let mut names = grouped(db, "SELECT image, name FROM image_names ORDER BY name").await?;
        let mut digests = grouped(db, "SELECT image, name FROM image_digests ORDER BY name").await?;
        let mut documents: HashMap<String, Vec<Document>> = HashMap::new();
        let document_rows: Vec<(String, String, String)> =
            sqlx::query_as("SELECT image, digest, media_type FROM image_documents")
                .fetch_all(db.state())
                .await?;
        for (image, digest, media_type) in document_rows {
            if let Some(digest) = Digest::parse(&digest) {
                documents.entry(image).or_default().push(Document { digest, media_type });
            }
        }
        let mut images = Vec::new();
        for (id, manifest_digest, parent, tagged_at) in rows {
            let read = Digest::parse(&id)
                .ok_or_else(|| StoreError::damaged(format!("image row {id} is malformed")))
                .and_then(|digest| blobs.read(&digest))
                .and_then(Image::from_config);
            match read {
                Ok(image) => images.push(Arc::new(Image {
                    tags: names.remove(&id).unwrap_or_default(),
                    repo_digests: digests.remove(&id).unwrap_or_default(),
                    documents: documents.remove(&id).unwrap_or_default().into(),
                    manifest_digest,
                    parent: parent.as_deref().and_then(ImageId::parse),
                    last_tagged: tagged_at.map(from_unix),
                    size_bytes: layers_size_bytes(layers, &image.layers),
                    ..image
                })),
                Err(error) => tracing::error!(%error, "an image is damaged; pull it again to repair it"),
            }
        }
        Ok(Self { published: Arc::new(RwLock::new(Arc::new(Index::new(images)))), write: Arc::default() })
    }

    /// The index of this moment.
    pub fn index(&self) -> Arc<Index> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows a new index to readers. The caller holds the write lock.
    pub fn publish(&self, index: Index) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(index);
    }

    pub async fn write_lock(&self) -> tokio::sync::OwnedMutexGuard<()> {
        self.write.clone().lock_owned().await
    }
}

/// Sum of the layers' sizes; a layer that an image holds twice counts once.
pub(crate) fn layers_size_bytes(layers: &Layers, diff_ids: &[Digest]) -> u64 {
    let distinct: std::collections::HashSet<_> = diff_ids.iter().collect();
    distinct.into_iter().filter_map(|d| layers.size_bytes(d)).sum()
}

async fn grouped(db: &Database, query: &'static str) -> Result<HashMap<String, Vec<String>>, StoreError> {
    let rows: Vec<(String, String)> = sqlx::query_as(query).fetch_all(db.state()).await?;
    let mut groups: HashMap<String, Vec<String>> = HashMap::new();
    for (image, name) in rows {
        groups.entry(image).or_default().push(name);
    }
    Ok(groups)
}
