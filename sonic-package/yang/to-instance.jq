# Array of configurations in the form of config_db.json -> one instance document of the YANG models (RFC 7950,
# XML) per line.
#
# XML and not JSON: its values are text, as those of CONFIG_DB are, so nothing here has to know a type. The key
# of a row is split at |; a list is an array (`name`, config_db.json) or comma separated text (`name@`, redis).

# Table -> module and key leaves; `prefix` is the second key leaf of rows `name|prefix`. A `container` has its
# only row's key for a name.
def models:
  {
    PORT: {module: "sonic-port", keys: ["name"]},
    PORTCHANNEL: {module: "sonic-portchannel", keys: ["name"]},
    VRF: {module: "sonic-vrf", keys: ["name"]},
    INTERFACE: {module: "sonic-interface", keys: ["name"], prefix: "ip-prefix"},
    PORTCHANNEL_INTERFACE: {module: "sonic-portchannel", keys: ["name"], prefix: "ip_prefix"},
    LOOPBACK_INTERFACE: {module: "sonic-loopback-interface", keys: ["name"], prefix: "ip-prefix"},
    ACL_TABLE: {module: "sonic-acl", keys: ["ACL_TABLE_NAME"]},
    ACL_RULE: {module: "sonic-acl", keys: ["ACL_TABLE_NAME", "RULE_NAME"]},
    STATIC_ROUTE: {module: "sonic-static-route", keys: ["vrf_name", "prefix"]},
    BGP_GLOBALS: {module: "sonic-bgp-global", keys: ["vrf_name"]},
    BGP_GLOBALS_AF: {module: "sonic-bgp-global", keys: ["vrf_name", "afi_safi"]},
    BGP_GLOBALS_AF_NETWORK: {module: "sonic-bgp-global", keys: ["vrf_name", "afi_safi", "ip_prefix"]},
    ROUTE_MAP_SET: {module: "sonic-route-map", keys: ["name"]},
    ROUTE_MAP: {module: "sonic-route-map", keys: ["name", "stmt_name"]},
    PREFIX_SET: {module: "sonic-routing-policy-sets", keys: ["name"]},
    PREFIX: {
      module: "sonic-routing-policy-sets",
      keys: ["name", "sequence_number", "ip_prefix", "masklength_range"]
    },
    DEVICE_METADATA: {module: "sonic-device_metadata", container: true},
    BOOT_NETWORK: {module: "sonic-boot-network", container: true},
    BOOT_NETWORK_PARTITION: {module: "sonic-boot-network", keys: ["id"]},
    BOOT_NETWORK_PORT: {module: "sonic-boot-network", keys: ["port"]},
    BOOT_NETWORK_PROFILE: {module: "sonic-boot-network", keys: ["name"]}
  };

# Modules whose namespace has another name.
def namespaces: {"sonic-routing-policy-sets": "sonic-routing-policy-lists"};

# A line end inside a value would end the document's line.
def text: tostring | @html | gsub("\n"; "&#10;") | gsub("\r"; "&#13;");

# Names come from rows; one that is no name of XML stays one that no model knows.
def element($name; $content): ($name | gsub("[^A-Za-z0-9_.-]"; "_")) as $name | "<\($name)>\($content)</\($name)>";

def field($name; $value):
  if $name == "NULL" then ""
  elif $value | type == "array" then $value | map(element($name; text)) | add // ""
  elif $name | endswith("@") then
    $value | split(",") | map(gsub("^\\s+|\\s+$"; "") | select(. != "") | element($name[:-1]; text)) | add // ""
  else element($name; $value | text)
  end;

def row($model; $table; $key):
  (to_entries | map(field(.key; .value)) | add // "") as $fields
  | if $model.container then element($key; $fields)
    else
      ($key | split("|")) as $parts
      | (if $model.prefix and ($parts | length) > 1
         then [$model.keys + [$model.prefix], "\($table)_IPPREFIX_LIST"]
         else [$model.keys, "\($table)_LIST"]
         end) as [$names, $list]
      # What is left over belongs to the last part.
      | ($names | length - 1) as $last
      | ($parts[:$last] + [$parts[$last:] | join("|")]) as $values
      | element($list; ([range($last + 1) | element($names[.]; $values[.] | text)] | add) + $fields)
    end;

def table($table):
  (models[$table] // error("no model of table \($table)")) as $model
  | {module: $model.module, xml: element($table; to_entries | map(.key as $key | .value | row($model; $table; $key)) | add // "")};

def document:
  to_entries
  | map(.key as $table | .value | table($table))
  | group_by(.module)
  | map(.[0].module as $name
      | "<\($name) xmlns=\"http://github.com/sonic-net/\(namespaces[$name] // $name)\">\(map(.xml) | add)</\($name)>")
  | add // "";

.[] | document
