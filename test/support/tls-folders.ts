/** Folders of TLS credentials as QEMU has them, for both sides and for those who should not get in. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CREDENTIALS_DEFAULTS, TlsCredentials, type TlsTerms } from '../../src/transport/index.ts';
import { type CertificateOptions, type Identity, identity, keyPem, revocations } from './certificates.ts';

export const HOST = 'vm.example';
export const CLIENT_NAME = 'vmferry client';

export interface TlsPair {
  readonly client: TlsTerms;
  readonly server: TlsTerms;
}

export interface X509Folder {
  readonly authority: Identity;
  readonly server?: Identity | undefined;
  readonly client?: Identity | undefined;
  readonly revoked?: readonly Identity[];
}

/** Everything that tests need, made once; `close` removes it. */
export class TlsFolders {
  readonly #root: string;
  readonly authority = identity({ name: 'vmferry test authority', authority: true });
  readonly #key = randomBytes(32).toString('hex');

  constructor(root = mkdtempSync(join(tmpdir(), 'vmferry-tls-'))) {
    this.#root = root;
  }

  /** A server for 127.0.0.1 and HOST, a client named CLIENT_NAME, unless said otherwise. */
  x509(name: string, folder: Partial<X509Folder> = {}): string {
    const { authority = this.authority, revoked } = folder;
    const server = 'server' in folder ? folder.server : this.server({ ips: ['127.0.0.1'], hosts: [HOST] });
    const client = 'client' in folder ? folder.client : this.client();
    const dir = this.#folder(name);
    const put = (file: string, text: string) => writeFileSync(join(dir, file), text, { mode: 0o600 });
    put('ca-cert.pem', authority.certificate);
    for (const [role, one] of Object.entries({ server, client })) {
      if (one === undefined) continue;
      put(`${role}-cert.pem`, one.certificate);
      put(`${role}-key.pem`, keyPem(one.key));
    }
    if (revoked !== undefined) put('ca-crl.pem', revocations(authority, revoked));
    return dir;
  }

  server(options: Partial<CertificateOptions>): Identity {
    return identity({ name: 'vmferry server', issuer: this.authority, purposes: ['server'], ...options });
  }

  client(options: Partial<CertificateOptions> = {}): Identity {
    return identity({ name: CLIENT_NAME, issuer: this.authority, purposes: ['client'], ...options });
  }

  /** `other`: another key for the same user. */
  psk(name: string, other = false): string {
    return this.text(name, 'keys.psk', `qemu:${other ? randomBytes(32).toString('hex') : this.#key}\n`);
  }

  /** Terms on which both come together. */
  pair(kind: 'x509' | 'psk'): TlsPair {
    const dir = kind === 'psk' ? this.psk('pair-psk') : this.x509('pair-x509');
    const side = (endpoint: 'client' | 'server') => ({
      credentials: new TlsCredentials({ kind, endpoint, dir, ...CREDENTIALS_DEFAULTS }),
    });
    return { client: side('client'), server: side('server') };
  }

  /** A folder with one file. */
  text(name: string, file: string, text: string): string {
    const dir = this.#folder(name);
    writeFileSync(join(dir, file), text, { mode: 0o600 });
    return dir;
  }

  #folder(name: string): string {
    const dir = join(this.#root, name);
    mkdirSync(dir, { recursive: true });
    return dir;
  }

  close(): void {
    rmSync(this.#root, { recursive: true, force: true });
  }
}
