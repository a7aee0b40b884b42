//! Hints for names that are not there.

/// ` (nearest: ..)` with the name closest to `wanted`, or nothing when none is close.
pub(crate) fn hint<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> String {
    let allowed = (wanted.len() / 3).max(2);
    names
        .filter(|name| name.len().abs_diff(wanted.len()) <= allowed)
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| format!(" (nearest: `{name}`)"))
        .unwrap_or_default()
}
