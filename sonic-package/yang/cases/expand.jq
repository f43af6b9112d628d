# Cases and the base configuration -> configurations. A row of a case, `TABLE|key`, adds to that of the base; null
# takes a row or a field away.
def merged($base):
  reduce (.rows | to_entries[]) as $row ($base;
    ($row.key | index("|")) as $bar
    | [$row.key[:$bar], $row.key[$bar + 1:]] as $path
    | if $row.value == null then delpaths([$path])
      else setpath($path; ((getpath($path) // {}) + $row.value) | with_entries(select(.value != null)))
      end);

map(merged($base[0]))
