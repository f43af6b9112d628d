//! SimSwitch: a model of vrfmgrd, intfmgrd and orchagent as observed.
