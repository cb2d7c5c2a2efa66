//! Files of text and of JSON, read whole, files that are written whole or not at all, and the sizes of pictures, read
//! off their heads.
//!
//! Knows no format of a data set.

use crate::fault::Fault;
use image::{ImageReader, ImageResult};
use serde_json::Value;
use std::path::Path;

/// The text of a file, without the mark that editors of Windows put in front.
pub(crate) fn text(path: &Path) -> Result<String, Fault> {
    let bytes = std::fs::read(path).map_err(|e| Fault::unreadable(path, e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let place = format!("byte {}", e.utf8_error().valid_up_to());
        let hint =
            "is it the file that was meant? Save it as UTF-8: Windows' PowerShell writes UTF-16 where it is not told";
        Fault::at(path, place, "something that is no text", "text in UTF-8", hint)
    })?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

/// The value of a file of JSON.
pub(crate) fn json(path: &Path) -> Result<Value, Fault> {
    serde_json::from_str(&text(path)?).map_err(|e| {
        let hint = match e.is_eof() {
            true => "was the file cut short? copy or download it again",
            false => {
                "is it the file that was meant? JSON knows no NaN, no Infinity and no comments: export it again without"
            }
        };
        Fault::whole(path, format!("text that is not JSON ({e})"), "a JSON object", hint)
    })
}

/// Writes a file by one rename; makes the folders that are needed.
pub(crate) fn put(path: &Path, bytes: &[u8]) -> Result<(), Fault> {
    // beside `x.json` there may be an `x.npy`
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".partial");
    let partial = path.with_file_name(name);
    let write = || {
        path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
        std::fs::write(&partial, bytes)?;
        std::fs::rename(&partial, path)
    };
    write().map_err(|e: std::io::Error| Fault::unwritable(path, e))
}

/// Width and height of a picture, px, as it is stored; by its content, whatever it is called.
pub(crate) fn size(picture: &Path) -> ImageResult<(u32, u32)> {
    ImageReader::open(picture)?.with_guessed_format()?.into_dimensions()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_passed_over_and_what_is_no_text_is_told() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.json");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            json(&path)
        };
        assert_eq!(read(b"\xef\xbb\xbf{\"a\": 1}").unwrap()["a"], 1);
        let error = read(b"\xff\xfe{\0").unwrap_err();
        assert!(error.to_string().ends_with("a.json, byte 0: found something that is no text, expected text in UTF-8"));
        assert!(error.hint().contains("UTF-16"));
        assert!(read(b"{\"a\": [1").unwrap_err().hint().contains("cut short"));
        assert!(read(b"{\"a\": NaN}").unwrap_err().hint().contains("no NaN"));
    }

    #[test]
    fn a_file_is_written_whole_into_folders_that_are_made() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/c.json");
        put(&path, b"{}").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"{}");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        // a file where a folder is needed
        let error = put(&path.join("d.json"), b"{}").unwrap_err();
        assert!(error.to_string().contains("c.json/d.json: ") && error.hint().contains("may you write"), "{error}");
    }

    #[test]
    fn a_picture_has_its_size_under_any_name() {
        let root = tempfile::tempdir().unwrap();
        let [png, jpg] = ["a.png", "a.jpg"].map(|name| root.path().join(name));
        image::RgbImage::new(5, 3).save(&png).unwrap();
        std::fs::rename(&png, &jpg).unwrap();
        assert_eq!(size(&jpg).unwrap(), (5, 3));
        assert!(size(&png).is_err());
    }
}
