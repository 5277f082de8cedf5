/** On standard error, whoever reads standard output: the guest's memory is about to cross a network as it is. */
export function warnExposed(uri: string): void {
  process.stderr.write(
    `WARNING: ${uri} is open to other machines, and without TLS: whoever can listen on the way reads the guest's memory, and whoever comes first ` +
      'is taken for the source. Use --tls-creds or --tls-psk (or the parameter tls-creds), or a tunnel.\n',
  );
}
