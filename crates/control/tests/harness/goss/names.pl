# A name server of a few names, without any module.
sub name { join("", map { pack("C a*", length($_), $_) } split(/\./, $_[0])) . "\0" }
sub txt { pack("C a*", length($_[0]), $_[0]) }
my %records = (
    "web.test/1" => [pack("C4", 192, 0, 2, 7)],
    "web.test/28" => [pack("H32", "20010db8000000000000000000000007")],
    "alias.test/5" => [name("web.test")],
    "web.test/15" => [pack("n", 10) . name("mail.test")],
    "web.test/2" => [name("ns.test")],
    "_http._tcp.web.test/33" => [pack("n3", 1, 2, 8080) . name("web.test")],
    "web.test/16" => [txt("v=spf1 -all") . txt("hello world")],
    "web.test/257" => [pack("C C a*", 0, 5, "issueca.test")],
    "7.2.0.192.in-addr.arpa/12" => [name("web.test")],
);
socket(S, 2, 2, 17) or die;
bind(S, pack("S n N x8", 2, 5353, 0)) or die;
while (1) {
    my $from = recv(S, my $query, 512, 0);
    next if length($query) < 17;
    my ($at, @labels) = (12);
    while ((my $length = ord(substr($query, $at, 1))) > 0) {
        push @labels, lc(substr($query, $at + 1, $length));
        $at += $length + 1;
    }
    my $kind = unpack("n", substr($query, $at + 1, 2));
    my $question = substr($query, 12, $at + 5 - 12);
    my @found = @{ $records{ join(".", @labels) . "/$kind" } || [] };
    my $answer = substr($query, 0, 2) . pack("n5", 0x8180, 1, scalar(@found), 0, 0) . $question;
    $answer .= pack("n n n N n a*", 0xc00c, $kind, 1, 60, length($_), $_) for @found;
    send(S, $answer, 0, $from);
}
