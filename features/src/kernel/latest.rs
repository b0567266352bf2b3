//! The latest event's time and values.
//!
//! Spilled times and values enter; the greatest of them as a row leaves: the latest time, of equal times the greater values. So
//! merging is a maximum and exact.
//!
//! Layout of a section: time, then the values; `NEVER` at first.

/// Takes in a row of time and values.
pub(crate) fn take(section: &mut [i64], row: &[i64]) {
    if section.len() == row.len() && row > &*section {
        section.copy_from_slice(row);
    }
}

/// Kilometres between two places, coordinates in degrees: the haversine formula on a sphere of 6,371.0088 km, the Earth's mean radius
/// (Sinnott, Sky and Telescope 68, 1984; IUGG). Off by at most 0.6 % of the distance on the ellipsoid.
pub(crate) fn kilometres(from: (f64, f64), to: (f64, f64)) -> f64 {
    let (south, north) = (from.0.to_radians(), to.0.to_radians());
    let half = |angle: f64| (angle / 2.0).sin().powi(2);
    let between = half(north - south) + south.cos() * north.cos() * half((to.1 - from.1).to_radians());
    2.0 * 6_371.008_8 * between.clamp(0.0, 1.0).sqrt().asin()
}
