# nginx with one page.
class web (
  String $greeting = 'Hello',
) {
  package { 'nginx':
    ensure => installed,
  }

  user { 'deploy':
    ensure => present,
    system => true,
    shell  => '/usr/sbin/nologin',
  }

  file { '/etc/nginx/nginx.conf':
    content => epp('web/nginx.conf.epp'),
    mode    => '0644',
    require => Package['nginx'],
    notify  => Service['nginx'],
  }

  file { '/var/www/html/index.html':
    content => epp('web/index.html.epp', { 'greeting' => $greeting }),
    owner   => 'deploy',
    mode    => '0644',
    require => [Package['nginx'], User['deploy']],
  }

  service { 'nginx':
    ensure => running,
    enable => true,
  }
}
