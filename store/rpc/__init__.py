"""Messages of etcd's API, generated from etcd.proto by scripts/generate-rpc; nothing here is edited by hand."""
