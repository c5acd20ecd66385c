//! Places where a test lets a thread of the recorder die. Outside tests they are nothing.

/// Does nothing.
#[cfg(not(test))]
#[inline]
pub(crate) const fn point(_place: &str) {}

/// Panics where [`armed::arm`] said so.
#[cfg(test)]
pub(crate) fn point(place: &str) {
    assert!(!armed::is_at(place), "injected at {place}");
}

#[cfg(test)]
pub(crate) mod armed {
    use std::sync::Mutex;

    static PLACE: Mutex<Option<&str>> = Mutex::new(None);

    /// From now on that place panics; none does when not told.
    pub(crate) fn arm(place: Option<&'static str>) {
        *PLACE.lock().unwrap() = place;
    }

    pub(super) fn is_at(place: &str) -> bool {
        *PLACE.lock().unwrap() == Some(place)
    }
}
