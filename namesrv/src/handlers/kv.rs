//! The key-value settings, as tools read and write them.

use std::io;
use std::sync::Arc;

use rocketmq_remoting::bodies::KvTable;
use rocketmq_remoting::header::name_server::{GetKvConfigResponse, KvConfigRequest, KvListRequest, PutKvConfigRequest};
use rocketmq_remoting::{Command, Header as _, ResponseCode, fastjson};

use crate::kv_config::KvConfig;
use crate::requests::{Refusal, Reply, Requests};

/// `PUT_KV_CONFIG`.
pub(crate) async fn put(state: Arc<Requests>, request: Command) -> Reply {
    let header = PutKvConfigRequest::decode(&request.ext_fields).map_err(|error| {
        // Java's words where one of the two is missing.
        let names = ["namespace", "key"].map(|name| request.ext_fields.get(name));
        let remark = if names.contains(&None) { "namespace or key is null".to_owned() } else { error.to_string() };
        Refusal::new(ResponseCode::SYSTEM_ERROR, remark)
    })?;
    tracing::info!("key-value setting put: {} {} = {}", header.namespace, header.key, header.value);
    change(state, move |settings| settings.put(&header.namespace, &header.key, &header.value)).await
}

/// `DELETE_KV_CONFIG`: well also where there is nothing.
pub(crate) async fn delete(state: Arc<Requests>, request: Command) -> Reply {
    let header = KvConfigRequest::decode(&request.ext_fields)?;
    tracing::info!("key-value setting deleted: {} {}", header.namespace, header.key);
    change(state, move |settings| settings.delete(&header.namespace, &header.key)).await
}

/// A change waits for the disk, on a thread that may wait.
async fn change(state: Arc<Requests>, change: impl FnOnce(&KvConfig) -> io::Result<()> + Send + 'static) -> Reply {
    let changed = tokio::task::spawn_blocking(move || change(&state.kv_config)).await;
    match changed.map_err(io::Error::other).flatten() {
        Ok(()) => Ok(Command::ok()),
        Err(error) => {
            tracing::error!(%error, "the key-value settings cannot be written");
            let remark = format!("the key-value settings cannot be written: {error}");
            Err(Refusal::new(ResponseCode::SYSTEM_ERROR, remark))
        }
    }
}

/// `GET_KV_CONFIG`.
pub(crate) fn get(state: &Requests, request: &Command) -> Reply {
    let header = KvConfigRequest::decode(&request.ext_fields)?;
    let Some(value) = state.kv_config.get(&header.namespace, &header.key) else {
        let remark = format!("No config item, Namespace: {} Key: {}", header.namespace, header.key);
        return Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark));
    };
    Ok(Command::ok().with_header(&GetKvConfigResponse { value: Some(value.into()) }))
}

/// `GET_KVLIST_BY_NAMESPACE`.
pub(crate) fn list(state: &Requests, request: &Command) -> Reply {
    let header = KvListRequest::decode(&request.ext_fields)?;
    let Some(table) = state.kv_config.namespace(&header.namespace) else {
        let remark = format!("No config item, Namespace: {}", header.namespace);
        return Err(Refusal::new(ResponseCode::QUERY_NOT_FOUND, remark));
    };
    Ok(Command::ok().with_body(fastjson::to_string(&KvTable { table })))
}
