//! What makes two transactions with one identifier the same one.

use telltale_features::door::Admitted;
use telltale_features::entity::EntityType;

/// Digest of entities, route and method.
pub fn content_digest(admitted: &Admitted) -> u64 {
    digest_of(admitted, None)
}

/// The same without the user, whom only the scorer that saw the login may know by the session: what all scorers agree on.
pub fn shared_digest(admitted: &Admitted, user: Option<EntityType>) -> u64 {
    digest_of(admitted, user)
}

fn digest_of(admitted: &Admitted, without: Option<EntityType>) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for subject in admitted.subjects.iter().filter(|subject| Some(subject.id.kind) != without) {
        hasher.update(&[subject.id.kind.0]).update(&subject.id.key.0);
    }
    hasher.update(&[255]).update(admitted.route.as_bytes()).update(&[0]);
    if let Some(http) = &admitted.tx.http {
        hasher.update(http.method.as_bytes());
    }
    let mut digest = [0; 8];
    for (to, from) in digest.iter_mut().zip(hasher.finalize().as_bytes()) {
        *to = *from;
    }
    u64::from_le_bytes(digest)
}
