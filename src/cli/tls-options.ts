/** TLS for commands that need no more than a folder of credentials. */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import type { TlsChoice } from '../porcelain/index.ts';

export interface TlsFlags {
  readonly tlsCreds?: string;
  readonly tlsPsk?: string;
  readonly tlsHostname?: string;
  readonly tlsAuthz?: string;
  readonly tlsVerifyPeer: boolean;
}

/** `role`: of this command's own end, or of both. */
export function addTlsOptions(command: Command, role: 'client' | 'server' | 'both'): Command {
  command
    .addOption(
      new Option('--tls-creds <folder>', "TLS with certificates, laid out as QEMU's tls-creds-x509 has them").argParser(
        path,
      ),
    )
    .addOption(
      new Option('--tls-psk <folder>', 'TLS with a key that both sides know, in keys.psk')
        .argParser(path)
        .conflicts('tlsCreds'),
    );
  if (role !== 'server')
    command.option('--tls-hostname <name>', "in the server's certificate, if not the host of the address");
  if (role !== 'client')
    command.option('--tls-authz <name>', 'the only client that may come, as CN=client,O=Org in its certificate');
  return command.option('--no-tls-verify-peer', 'ask the peer for no certificate');
}

/** A peer of another folder is told where ours is. */
function path(text: string): string {
  return resolve(text);
}

export function tlsChoice(flags: TlsFlags): TlsChoice | undefined {
  const { tlsCreds, tlsPsk, tlsHostname, tlsAuthz, tlsVerifyPeer } = flags;
  const dir = tlsCreds ?? tlsPsk;
  if (dir === undefined) return undefined;
  return {
    kind: tlsPsk === undefined ? 'x509' : 'psk',
    dir,
    verifyPeer: tlsVerifyPeer,
    hostname: tlsHostname,
    identity: tlsAuthz,
  };
}
