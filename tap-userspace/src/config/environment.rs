//! stand-in
/// x
pub struct Environment;
/// x
pub struct Finding { /// x
 pub variable: String, /// x
 pub effect: String }
impl Finding { /// x
 pub fn is_warning(&self) -> bool { false } }
/// x
pub struct Limits { /// x
 pub events: u32 }
impl Environment {
    /// x
    pub fn from_process() -> Result<Self, String> { Ok(Self) }
    /// x
    pub fn warn(&self) {}
    /// x
    pub fn findings(&self) -> Vec<Finding> { vec![] }
    /// x
    pub fn limits(&self) -> Limits { Limits { events: 128 } }
}
