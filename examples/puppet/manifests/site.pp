if $facts['role'] == 'web' {
  include web
}
