import { spawn } from 'node:child_process';
import type { Duplex } from 'node:stream';

/**
 * Gives QEMU one end of a socket pair as descriptor `name` (getfd) and starts `migrate fd:NAME` in the same QMP session; resolves to our
 * end. Node cannot send descriptors, so a few lines of Perl - there on every Debian - do; with anything else in the way it throws.
 */
export function migrateToSocket(qmpPath: string, name: string): Promise<Duplex> {
  const child = spawn('perl', ['-e', PROGRAM, qmpPath, name], { stdio: ['pipe', 'pipe', 'pipe', 'pipe'] });
  const ours = child.stdio[3] as Duplex;
  // At its exit Node would empty the streams of a child: it has to live as long as the socket does.
  ours.once('close', () => child.kill());
  let said = '';
  child.stderr?.on('data', (bytes: Buffer) => {
    said += bytes.toString();
  });
  return new Promise((resolve, reject) => {
    child.stdout?.once('data', () => resolve(ours));
    child.once('error', reject);
    child.once('close', () => reject(new Error(`passing a socket to QEMU failed: ${said.trim()}`)));
  });
}

/** struct msghdr, iovec and cmsghdr of x86-64 Linux; 46 is sendmsg, and the descriptor to pass is 3. */
const PROGRAM = String.raw`
  use strict; use Socket; use POSIX (); use IO::Handle;
  my ($path, $name) = @ARGV;
  $SIG{ALRM} = sub { die "no answer within 20 s\n" }; alarm 20;
  socket(my $qmp, PF_UNIX, SOCK_STREAM, 0) or die "socket: $!\n";
  connect($qmp, sockaddr_un($path)) or die "connect: $!\n";
  $qmp->autoflush(1);
  <$qmp>;
  sub reply { while (my $line = <$qmp>) { die $line if $line =~ /"error"/; return if $line =~ /"return"/ } die "QMP ended\n" }
  print $qmp qq({"execute":"qmp_capabilities"}\n); reply();
  my $text = qq({"execute":"getfd","arguments":{"fdname":"$name"}}\n);
  my $vector = pack("P Q", $text, length $text);
  my $control = pack("Q l l l x4", 20, 1, 1, 3);
  my $message = pack("Q L x4 P Q P Q l x4", 0, 0, $vector, 1, $control, length $control, 0);
  syscall(46, fileno($qmp), $message, 0) == length $text or die "sendmsg: $!\n";
  reply();
  print $qmp qq({"execute":"migrate","arguments":{"uri":"fd:$name"}}\n); reply();
  POSIX::close(3);
  alarm 0; STDOUT->autoflush(1); print "done\n"; <STDIN>;
`;
