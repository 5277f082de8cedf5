/**
 * A folder as QEMU's `tls-creds-x509` has it: ca-cert.pem, ca-crl.pem, {server,client}-cert.pem, {server,client}-key.pem. All is checked
 * when it is loaded: who finds out only when a guest is to leave finds out too late.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '../errors.ts';
import { badCredentials } from './errors.ts';

/** Paths of what the folder has. */
export interface X509Files {
  readonly ca: string;
  readonly crl: string | undefined;
  /** A client may have none. */
  readonly own: { readonly certificate: string; readonly key: string } | undefined;
}

/** Object identifiers of extended key usage. */
const PURPOSE = { server: '1.3.6.1.5.5.7.3.1', client: '1.3.6.1.5.5.7.3.2' } as const;

const PEM = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g;

/** Throws TRANSPORT_TLS_CREDENTIALS. */
export function x509Files(dir: string, endpoint: 'client' | 'server', nowMs = Date.now()): X509Files {
  const authorities = certificates(dir, 'ca-cert.pem', true, nowMs)!;
  const names = { certificate: `${endpoint}-cert.pem`, key: `${endpoint}-key.pem` };
  const chain = certificates(dir, names.certificate, endpoint === 'server', nowMs);
  const key = read(dir, names.key, chain !== undefined);
  const crl = read(dir, 'ca-crl.pem', false);
  const ca = join(dir, 'ca-cert.pem');
  const more = { ca, crl: crl === undefined ? undefined : join(dir, 'ca-crl.pem') };
  if (chain === undefined || key === undefined) return { ...more, own: undefined };
  const [own] = chain as [X509Certificate];
  // OpenSSL would ask for the passphrase of an encrypted key at the terminal.
  const matches = attempt(dir, names.key, 'is no private key without a passphrase', () =>
    own.checkPrivateKey(createPrivateKey(key)),
  );
  if (!matches) throw badCredentials(dir, names.key, `is not the key of ${names.certificate}`);
  if (own.keyUsage !== undefined && !own.keyUsage.includes(PURPOSE[endpoint]))
    throw badCredentials(dir, names.certificate, `is not made for a ${endpoint} (extended key usage)`);
  const last = chain.at(-1)!;
  if (!authorities.some((authority) => last.checkIssued(authority) && last.verify(authority.publicKey)))
    throw badCredentials(dir, names.certificate, 'is not issued by an authority in ca-cert.pem');
  return { ...more, own: { certificate: join(dir, names.certificate), key: join(dir, names.key) } };
}

/** Undefined if the file is not there and need not be. */
function certificates(dir: string, file: string, needed: boolean, nowMs: number): X509Certificate[] | undefined {
  const text = read(dir, file, needed);
  if (text === undefined) return undefined;
  const found = (text.match(PEM) ?? []).map((pem) =>
    attempt(dir, file, 'holds what is no certificate', () => new X509Certificate(pem)),
  );
  if (found.length === 0) throw badCredentials(dir, file, 'holds no certificate');
  for (const { subject, validFrom, validTo } of found) {
    const name = subject.replaceAll('\n', ', ');
    if (Date.parse(validTo) < nowMs) throw badCredentials(dir, file, `${name}: has expired (${validTo})`);
    if (Date.parse(validFrom) > nowMs) throw badCredentials(dir, file, `${name}: is not valid yet (${validFrom})`);
  }
  return found;
}

export function read(dir: string, file: string, needed: boolean): string | undefined {
  try {
    return readFileSync(join(dir, file), 'latin1');
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' && !needed) return undefined;
    throw badCredentials(dir, file, errno === 'ENOENT' ? 'is not there' : `cannot be read (${errno})`, error);
  }
}

function attempt<T>(dir: string, file: string, why: string, action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw badCredentials(dir, file, why, error);
  }
}
