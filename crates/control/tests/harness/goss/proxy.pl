# A proxy without any module: whole addresses, and CONNECT.
$SIG{CHLD} = "IGNORE";
socket(L, 2, 1, 6) or die;
bind(L, pack("S n N x8", 2, 3128, 0)) or die;
listen(L, 16) or die;
while (accept(my $client, L)) {
    if (fork()) { close $client; next }
    my $head = "";
    while ($head !~ /\r\n\r\n$/) { sysread($client, my $byte, 1) or exit; $head .= $byte }
    my ($method, $host, $port) = $head =~ m{^(\S+) (?:http://)?([^:/ ]+):(\d+)} or exit;
    socket(my $server, 2, 1, 6) or die;
    connect($server, pack("S n C4 x8", 2, $port, split(/\./, $host))) or exit;
    if ($method eq "CONNECT") { syswrite($client, "HTTP/1.1 200 fine\r\n\r\n") }
    else { $head =~ s{http://[^/ ]+}{}; syswrite($server, $head) }
    my ($from, $to) = fork() ? ($client, $server) : ($server, $client);
    while (sysread($from, my $bytes, 65536)) { syswrite($to, $bytes) }
    shutdown($to, 1);
    exit;
}
