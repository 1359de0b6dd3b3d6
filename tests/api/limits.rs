//! How much a user and an address may ask for. The clock stands unless a test moves it.

mod addresses;
mod users;
