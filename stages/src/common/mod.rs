//! What several stages share, and what is beside a stage to keep its file readable: no stage lies here, and none is
//! registered.

automod::dir!(pub "src/common");
