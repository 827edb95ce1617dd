//! The name server's own configuration, read and changed at run time.

use std::path::Path;
use std::sync::Arc;

use rocketmq_remoting::tls::TlsSettings;
use rocketmq_remoting::{Command, ResponseCode, properties_file};

use crate::kv_config::replace_file;
use crate::requests::{Refusal, Reply, Requests};

/// `GET_NAMESRV_CONFIG`.
pub(crate) fn get(state: &Requests) -> Command {
    Command::ok().with_body(state.config().to_text())
}

/// `UPDATE_NAMESRV_CONFIG`: takes effect at once where a key can, and is written to
/// `configStorePath`. Where that cannot be written (a mounted configuration, say), the change
/// holds until the process ends, and the answer says so.
pub(crate) async fn update(state: Arc<Requests>, request: Command) -> Reply {
    let body = request.body.bytes();
    let Ok(text) = std::str::from_utf8(&body) else {
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, "the configuration is not UTF-8"));
    };
    let entries = properties_file::parse(text);
    if let Some((key, _)) = entries.iter().find(|(key, _)| TlsSettings::is_key(key)) {
        let remark =
            format!("{key} takes effect at the start only; set it in namesrv.conf and restart the name server");
        return Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark));
    }
    let changed = {
        let mut current = state.config.write();
        if entries.iter().any(|(key, _)| current.is_black_listed(key)) {
            return Err(Refusal::new(ResponseCode::NO_PERMISSION, "Can not update config in black list."));
        }
        let mut changed = current.as_ref().clone();
        let ignored =
            changed.apply(text).map_err(|error| Refusal::new(ResponseCode::SYSTEM_ERROR, error.to_string()))?;
        for key in &ignored.unknown {
            tracing::warn!("configuration key {key} is unknown and ignored");
        }
        let changed = Arc::new(changed);
        *current = Arc::clone(&changed);
        changed
    };
    for (key, value) in entries {
        tracing::info!("configuration updated: {key}={value}");
    }
    let path = changed.config_store_path.clone();
    let written = tokio::task::spawn_blocking(move || {
        replace_file(Path::new(&changed.config_store_path), changed.to_file().as_bytes())
    });
    match written.await.map_err(std::io::Error::other).flatten() {
        Ok(()) => Ok(Command::ok()),
        Err(error) => {
            tracing::warn!(%error, path, "the changed configuration cannot be written");
            let remark = format!("changed until the restart: {path} cannot be written: {error}");
            Ok(Command::ok().with_remark(remark))
        }
    }
}
