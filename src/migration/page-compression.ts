import type { PageCompression } from '../dataplane/index.ts';
import type { SettingsView } from '../settings/index.ts';
import { unsupported } from './errors.ts';

/** Parameter multifd-compression. Throws MIGRATION_UNSUPPORTED for the methods of special hardware, by name. */
export function pageCompression(settings: SettingsView): PageCompression {
  const method = settings.parameter('multifd-compression');
  if (method === 'none' || method === 'zlib' || method === 'zstd') return method;
  throw unsupported(`multifd-compression ${method}`);
}
