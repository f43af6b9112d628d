# config_db.json -> redis commands. Lists become leaf-list fields (`name@`), empty rows `NULL: NULL`.
def quoted: tostring | @json;
to_entries[] | .key as $table | .value | to_entries[]
| ($table + "|" + .key) as $key
| (.value | to_entries
   | map(if (.value | type) == "array" then {key: (.key + "@"), value: (.value | join(","))} else . end)
   | if length == 0 then [{key: "NULL", value: "NULL"}] else . end)
| "HSET \($key | quoted) " + (map("\(.key | quoted) \(.value | quoted)") | join(" "))
