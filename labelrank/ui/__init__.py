"""What the pages share: the session's choices and the parts they are shown with. Nothing else imports streamlit."""
