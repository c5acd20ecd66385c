//! Numbers of slabs: one that was given back is given again.

/// Puts an item at a number that is free, else at a new one; answers the number.
pub(super) fn give<T>(items: &mut Vec<T>, free: &mut Vec<u32>, item: T) -> u32 {
    match free.pop() {
        Some(number) => {
            items[number as usize] = item;
            number
        }
        None => {
            items.push(item);
            items.len() as u32 - 1
        }
    }
}
